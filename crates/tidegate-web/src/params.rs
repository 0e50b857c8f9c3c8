//! `Params`: what stands in a path for the names of its route's pattern, and how a program's types are made of it.
//!
//! Invariant: in the order of the pattern, decoded. A route without names has none, which costs no allocation.

use serde::de::value::{Error as ValueError, MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Names and values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl Params {
    pub(crate) fn of(found: &matchit::Params<'_, '_>) -> Self {
        Self { pairs: found.iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }

    pub(crate) fn named(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }
}

impl Params {
    /// The value of a route with one name.
    fn only(&self) -> Result<Text<'_>, ValueError> {
        match &*self.pairs {
            [(_, value)] => Ok(Text(value)),
            pairs => {
                Err(ValueError::custom(format!("the route has {} names, and one is wanted", pairs.len())))
            }
        }
    }
}

macro_rules! through_the_only_one {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            self.only()?.$method(visitor)
        }
    )*};
}

/// A struct takes the values by name, a tuple or a sequence in order, anything else the only one.
impl<'de> Deserializer<'de> for &'de Params {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        self.only()?.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_map(MapDeserializer::new(self.pairs.iter().map(|(name, value)| (&**name, Text(value)))))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_seq(SeqDeserializer::new(self.pairs.iter().map(|(_, value)| Text(value))))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ValueError> {
        if len != self.pairs.len() {
            let found = self.pairs.len();
            return Err(ValueError::custom(format!("the route has {found} names, and {len} are wanted")));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_unit()
    }

    through_the_only_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! { str string bytes byte_buf option unit_struct identifier ignored_any }
}

/// One value. What is to be a number is read as one.
#[derive(Clone, Copy, Debug)]
struct Text<'a>(&'a str);

macro_rules! parsed {
    ($($method:ident $visit:ident $what:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
            let parsed: Result<$what, _> = self.0.parse();
            match parsed {
                Ok(value) => visitor.$visit(value),
                Err(error) => Err(ValueError::custom(format!("{:?}: {error}", self.0))),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Text<'de> {
    type Error = ValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_borrowed_str(self.0)
    }

    parsed! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
        deserialize_char visit_char char;
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ValueError> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, ValueError> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A variant without content, by its name.
impl<'de> EnumAccess<'de> for Text<'de> {
    type Error = ValueError;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), ValueError> {
        Ok((seed.deserialize(self)?, Unit))
    }
}

/// The content of such a variant.
#[derive(Debug)]
struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = ValueError;

    fn unit_variant(self) -> Result<(), ValueError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, ValueError> {
        Err(content())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ValueError> {
        Err(content())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        Err(content())
    }
}

fn content() -> ValueError {
    ValueError::custom("a part of a path is no variant with content")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params { pairs: pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect() }
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Number(u16);

    #[derive(Debug, Deserialize, PartialEq)]
    struct Both<'a> {
        name: &'a str,
        id: Number,
        colour: Option<Colour>,
        more: Option<String>,
    }

    #[test]
    fn one_value_is_taken_as_what_is_wanted() {
        let of = |value: &str| params(&[("id", value)]);
        assert_eq!(u64::deserialize(&of("18446744073709551615")), Ok(u64::MAX));
        assert_eq!(i8::deserialize(&of("-128")), Ok(-128));
        assert_eq!(String::deserialize(&of("a b")), Ok("a b".to_owned()));
        assert_eq!(bool::deserialize(&of("true")), Ok(true));
        assert_eq!(char::deserialize(&of("ä")), Ok('ä'));
        assert_eq!(Number::deserialize(&of("5")), Ok(Number(5)));
        assert_eq!(Colour::deserialize(&of("red")), Ok(Colour::Red));
        assert_eq!(<(u8,)>::deserialize(&of("5")), Ok((5,)));
        assert!(u8::deserialize(&of("256")).is_err());
        assert!(Colour::deserialize(&of("blue")).is_err());
        assert_eq!(
            u8::deserialize(&of("x")).unwrap_err().to_string(),
            "\"x\": invalid digit found in string"
        );
    }

    #[test]
    fn several_are_taken_in_order_or_by_name() {
        let of = params(&[("id", "7"), ("name", "ada"), ("colour", "red")]);
        assert_eq!(<(u32, String, Colour)>::deserialize(&of), Ok((7, "ada".into(), Colour::Red)));
        let both = Both { name: "ada", id: Number(7), colour: Some(Colour::Red), more: None };
        assert_eq!(Both::deserialize(&of), Ok(both));
        assert_eq!(Vec::<String>::deserialize(&of).map(|all| all.len()), Ok(3));
        assert_eq!(of.named("name"), Some("ada"));
        let error = <(u32, String)>::deserialize(&of).unwrap_err().to_string();
        assert_eq!(error, "the route has 3 names, and 2 are wanted");
        assert_eq!(u8::deserialize(&of).unwrap_err().to_string(), "the route has 3 names, and one is wanted");
        assert_eq!(<()>::deserialize(&params(&[])), Ok(()));
    }
}
