//! Values inside the value of one key: lists, tables with fields, and tables whose names are free.
//!
//! Invariant: as for [`Kind::read`], what comes out is canonical, every field that has a default is there, and what is wrong
//! has the place of the innermost value that is.

use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::kind::{Context, Kind, quote};
use super::nearest::nearest;
use super::schema::Default;

/// A field of a table.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// What it is when it is not there; nothing is derived here.
    pub(crate) default: Default,
}

/// `["a", "b"]`
pub(crate) fn list(of: &Kind, max: usize, value: &DeValue<'_>, context: &Context) -> Result<Json, Problem> {
    let elements = elements(value, max)?;
    let read =
        |(idx, element): (usize, &Spanned<DeValue<'_>>)| inner(of, element, context, &format!("[{idx}]"));
    elements.iter().enumerate().map(read).collect()
}

/// `[{ a = 1, b = 2 }, …]`
pub(crate) fn records(
    fields: &[Field],
    max: usize,
    value: &DeValue<'_>,
    context: &Context,
) -> Result<Json, Problem> {
    let read = |(idx, element): (usize, &Spanned<DeValue<'_>>)| {
        record(fields, element.get_ref(), context)
            .map_err(|problem| problem.inside(element.span(), &format!("[{idx}]")))
    };
    elements(value, max)?.iter().enumerate().map(read).collect()
}

/// `{ a = 1, b = 2 }`
pub(crate) fn record(fields: &[Field], value: &DeValue<'_>, context: &Context) -> Result<Json, Problem> {
    let table = table(value)?;
    for name in table.keys() {
        if !fields.iter().any(|field| field.name == name.get_ref()) {
            let names = || fields.iter().map(|field| field.name);
            let problem = Problem::new(format!("unknown key {}", quote(name.get_ref())))
                .near(nearest(name.get_ref(), names()).map(quote))
                .allowed(names().collect::<Vec<&str>>().join(", "));
            return Err(problem.inside(name.span(), ""));
        }
    }
    let mut read = Map::new();
    for field in fields {
        let found = match (table.iter().find(|(name, _)| name.get_ref() == field.name), field.default) {
            (Some((_, value)), _) => inner(&field.kind, value, context, &format!(".{}", field.name))?,
            // The defaults are right, which a test shows.
            (None, Default::Value(text)) => {
                field.kind.read(DeValue::parse_recoverable(text).0.get_ref(), context)?
            }
            (None, Default::Required) => {
                let missing = Problem::new(format!("{} is missing", quote(field.name)));
                return Err(missing.allowed(format!("{} = {}", field.name, field.kind.allowed(&[], &[]))));
            }
            (None, Default::Absent | Default::Derived(_)) => continue,
        };
        read.insert(field.name.to_owned(), found);
    }
    Ok(Json::Object(read))
}

/// `{ "any name" = 1 }`
pub(crate) fn map(
    names: &Kind,
    of: &Kind,
    max: usize,
    value: &DeValue<'_>,
    context: &Context,
) -> Result<Json, Problem> {
    let table = table(value)?;
    if table.len() > max {
        return Err(Problem::new(format!("{} entries are too many", table.len())));
    }
    let mut read = Map::new();
    for (name, value) in table {
        let as_value = DeValue::String(name.get_ref().clone());
        let known = names
            .read(&as_value, context)
            .map_err(|problem| problem.allowed(names.allowed(&[], &[])).inside(name.span(), ""))?;
        let label = format!(".{}", name.get_ref());
        read.insert(known.as_str().unwrap_or_default().to_owned(), inner(of, value, context, &label)?);
    }
    Ok(Json::Object(read))
}

/// The fields of a table in words.
pub(crate) fn fields(fields: &[Field]) -> String {
    let field = |field: &Field| match field.default {
        Default::Required => format!("{} = …", field.name),
        Default::Value(text) => format!("{} = {text}", field.name),
        Default::Absent | Default::Derived(_) => format!("{} = … or none", field.name),
    };
    format!("{{ {} }}", fields.iter().map(field).collect::<Vec<String>>().join(", "))
}

fn inner(kind: &Kind, value: &Spanned<DeValue<'_>>, context: &Context, label: &str) -> Result<Json, Problem> {
    kind.read(value.get_ref(), context).map_err(|problem| {
        let problem = if problem.is_placed() { problem } else { problem.allowed(kind.allowed(&[], &[])) };
        problem.inside(value.span(), label)
    })
}

fn elements<'a, 'b>(value: &'a DeValue<'b>, max: usize) -> Result<&'a [Spanned<DeValue<'b>>], Problem> {
    let elements = value.as_array().ok_or_else(|| mistyped(value))?;
    if elements.len() > max {
        return Err(Problem::new(format!("{} elements are too many", elements.len())));
    }
    Ok(elements)
}

fn table<'a, 'b>(value: &'a DeValue<'b>) -> Result<&'a DeTable<'b>, Problem> {
    value.as_table().ok_or_else(|| mistyped(value))
}

fn mistyped(value: &DeValue<'_>) -> Problem {
    let article = if matches!(value.type_str(), "integer" | "array") { "an" } else { "a" };
    Problem::new(format!("{article} {} is not allowed", value.type_str()))
}
