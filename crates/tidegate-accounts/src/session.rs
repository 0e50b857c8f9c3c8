//! The tables of sessions, keys and salts, as one process asks them.
//!
//! Invariant: a session that was granted survives a crash of the machine, and so does its end and the use of a salt. What is
//! out of date is deleted when something of its kind is added.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use crate::store::{Store, User};
use crate::token::SECRET_LEN;
use crate::{AccountsError, DeviceKey, Session, SignedLogin, Token};

/// Sessions that an account has at once; a further one ends the oldest.
const MAX_SESSIONS: i64 = 32;

/// Salts of an account that are kept at once: logins of its devices within the window.
const MAX_SALTS: i64 = 1000;

/// What became of a signature that was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    /// It was seen for the first time, and a session was made.
    First,
    /// It has been used.
    Before,
    /// The account logs in too often.
    TooOften,
}

impl Store {
    /// Makes a session that ends at `expires_at`.
    pub(crate) fn insert_session(
        &self,
        user: &User,
        token: &Token,
        now: i64,
        expires_at: i64,
    ) -> Result<(), AccountsError> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        insert_session(&transaction, user.id, token, now, expires_at)?;
        Ok(transaction.commit()?)
    }

    /// Makes a session for a signed login whose salt is new. The salt is kept until `salt_until`.
    pub(crate) fn use_salt(
        &self,
        (user, login): (&User, &SignedLogin),
        token: &Token,
        (now, salt_until, expires_at): (i64, i64, i64),
    ) -> Result<Used, AccountsError> {
        let transaction = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        transaction.prepare_cached("DELETE FROM salts WHERE expires_at < ?1")?.execute([now])?;
        let mut count = transaction.prepare_cached("SELECT count(*) FROM salts WHERE user = ?1")?;
        if count.query_row([user.id], |row| row.get::<_, i64>(0))? >= MAX_SALTS {
            return Ok(Used::TooOften);
        }
        drop(count);
        let mut insert = transaction.prepare_cached(
            "INSERT INTO salts (user, salt, expires_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?;
        if insert.execute(params![user.id, login.salt(), salt_until])? == 0 {
            return Ok(Used::Before);
        }
        drop(insert);
        insert_session(&transaction, user.id, token, now, expires_at)?;
        transaction.commit()?;
        Ok(Used::First)
    }

    /// The session of a token, unless it has ended.
    pub(crate) fn session(&self, token: &Token, now: i64) -> Result<Option<Session>, AccountsError> {
        let mut query = self.db.prepare_cached(
            "SELECT users.id, users.name, users.kind, sessions.expires_at
             FROM sessions JOIN users ON users.id = sessions.user
             WHERE sessions.token = ?1 AND sessions.expires_at > ?2",
        )?;
        let found = query.query_row(params![token.hash(), now], |row| {
            Ok(Session::new(User::new(row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?))
        });
        Ok(found.optional()?)
    }

    /// Ends a session; false when there was none.
    pub(crate) fn delete_session(&self, token: &Token) -> Result<bool, AccountsError> {
        let mut delete = self.db.prepare_cached("DELETE FROM sessions WHERE token = ?1")?;
        Ok(delete.execute([token.hash()])? == 1)
    }

    /// A user, and the key of the user's devices if there is one.
    pub(crate) fn user_with_key(
        &self,
        name: &str,
    ) -> Result<Option<(User, Option<DeviceKey>)>, AccountsError> {
        let mut query = self.db.prepare_cached("SELECT id, kind, device_key FROM users WHERE name = ?1")?;
        let found = query.query_row([name], |row| {
            let key: Option<[u8; SECRET_LEN]> = row.get(2)?;
            Ok((User::new(row.get(0)?, name.to_owned(), row.get(1)?), key.map(DeviceKey::from_bytes)))
        });
        Ok(found.optional()?)
    }

    /// Gives the user's devices another key.
    pub(crate) fn set_key(&self, user: &User, key: &DeviceKey) -> Result<(), AccountsError> {
        let mut update = self.db.prepare_cached("UPDATE users SET device_key = ?2 WHERE id = ?1")?;
        update.execute(params![user.id, key.as_bytes()])?;
        Ok(())
    }
}

fn insert_session(
    db: &Connection,
    user: i64,
    token: &Token,
    now: i64,
    expires_at: i64,
) -> Result<(), AccountsError> {
    db.prepare_cached("DELETE FROM sessions WHERE expires_at <= ?1")?.execute([now])?;
    let mut trim = db.prepare_cached(
        "DELETE FROM sessions WHERE token IN
            (SELECT token FROM sessions WHERE user = ?1 ORDER BY created_at DESC LIMIT -1 OFFSET ?2)",
    )?;
    trim.execute(params![user, MAX_SESSIONS - 1])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO sessions (token, user, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![token.hash(), user, now, expires_at])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn store() -> (tempfile::TempDir, Store, User) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("accounts.db"), Duration::from_secs(30)).unwrap();
        store.insert("ada", 7, "hash").unwrap();
        let (ada, _) = store.user("ada").unwrap().unwrap();
        (dir, store, ada)
    }

    fn token() -> Token {
        Token::generate().unwrap()
    }

    #[test]
    fn a_session_lasts_until_its_time_is_over_or_it_is_ended() {
        let (_dir, store, ada) = store();
        let (one, two) = (token(), token());
        store.insert_session(&ada, &one, 1000, 1060).unwrap();
        store.insert_session(&ada, &two, 1000, 1090).unwrap();
        assert_eq!(store.session(&one, 1059).unwrap(), Some(Session::new(ada.clone(), 1060)));
        assert_eq!(store.session(&one, 1060).unwrap(), None);
        assert_eq!(store.session(&token(), 1000).unwrap(), None);
        assert!(store.delete_session(&two).unwrap());
        assert!(!store.delete_session(&two).unwrap());
        assert_eq!(store.session(&two, 1059).unwrap(), None);
    }

    #[test]
    fn what_is_over_is_deleted_and_an_account_has_so_many_at_most() {
        let (_dir, store, ada) = store();
        let count =
            || -> i64 { store.db.query_row("SELECT count(*) FROM sessions", [], |row| row.get(0)).unwrap() };
        let first = token();
        store.insert_session(&ada, &first, 1000, 5000).unwrap();
        for second in 1..=MAX_SESSIONS {
            store.insert_session(&ada, &token(), 1000 + second, 5000).unwrap();
        }
        assert_eq!(count(), MAX_SESSIONS);
        assert_eq!(store.session(&first, 1100).unwrap(), None, "the oldest");
        store.insert_session(&ada, &token(), 5000, 6000).unwrap();
        assert_eq!(count(), 1);
    }

    #[test]
    fn the_database_holds_no_token() {
        let (dir, store, ada) = store();
        let token = token();
        store.insert_session(&ada, &token, 1000, 5000).unwrap();
        let secret = crate::token::from_hex::<SECRET_LEN>(token.reveal().as_bytes()).unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }

    #[test]
    fn a_salt_is_good_once_for_as_long_as_the_time_signed_is() {
        let (_dir, store, ada) = store();
        let key = DeviceKey::generate().unwrap();
        let login = |salt: &str| {
            let sign = SignedLogin::sign(&key, 1000, salt, "ada");
            SignedLogin::new(1000, salt.as_bytes(), b"ada", &sign).unwrap()
        };
        let using =
            |salt: &str, now| store.use_salt((&ada, &login(salt)), &token(), (now, 1300, 9000)).unwrap();
        assert_eq!(using("salt-number-1", 1000), Used::First);
        assert_eq!(using("salt-number-1", 1300), Used::Before);
        assert_eq!(using("salt-number-2", 1300), Used::First);
        assert_eq!(using("salt-number-1", 1301), Used::First, "nobody takes that time any more");
        store
            .db
            .execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
            INSERT INTO salts SELECT 1, 'filled ' || i, 2000 FROM n",
                [],
            )
            .unwrap();
        assert_eq!(using("salt-number-9", 1301), Used::TooOften);
    }

    #[test]
    fn a_key_is_kept_and_replaced() {
        let (_dir, store, ada) = store();
        assert_eq!(store.user_with_key("ada").unwrap(), Some((ada.clone(), None)));
        for _ in 0..2 {
            let key = DeviceKey::generate().unwrap();
            store.set_key(&ada, &key).unwrap();
            assert_eq!(store.user_with_key("ada").unwrap(), Some((ada.clone(), Some(key))));
        }
        assert_eq!(store.user_with_key("bob").unwrap(), None);
    }
}
