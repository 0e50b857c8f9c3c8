//! `ErrorPages`: the pages of a site that stand in for the plain ones of the server.
//!
//! Invariant: they are in memory from the start. What says that descriptors have run out needs none itself, and a page that
//! is missing is found when the site is built, not when something else is already wrong.

use std::io;
use std::os::fd::OwnedFd;

use tidegate_http::{Status, normalize_path};

use super::FilesError;
use super::content::read_up_to;
use super::content_type::content_type;
use super::root::{OpenError, Opened, Root};
use crate::Response;

/// The pages by what they are for: single statuses before classes.
#[derive(Debug, Default)]
pub(crate) struct ErrorPages {
    pages: Vec<(For, Page)>,
}

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Status(u16),
    Class(u16),
}

#[derive(Debug)]
struct Page {
    content_type: String,
    body: Vec<u8>,
}

/// A page is copied into every answer it is sent with.
const MAX_BYTES: u64 = 256 << 10;

impl ErrorPages {
    pub(crate) fn read(root: &Root, pages: &[(String, String)]) -> Result<Self, FilesError> {
        let mut read = Vec::with_capacity(pages.len());
        for (status, path) in pages {
            let parsed =
                For::parse(status).ok_or_else(|| FilesError::ErrorStatus { status: status.clone() })?;
            let page = Page::read(root, path).map_err(|source| FilesError::ErrorPage {
                status: status.clone(),
                path: path.clone(),
                source,
            })?;
            read.push((parsed, page));
        }
        read.sort_by_key(|(status, _)| *status);
        Ok(Self { pages: read })
    }

    /// The page for a status, if there is one.
    pub(crate) fn response(&self, status: Status) -> Option<Response> {
        let (_, page) = self.pages.iter().find(|(wanted, _)| wanted.is_for(status))?;
        let response = Response::new(status).header("Content-Type", page.content_type.clone());
        Some(response.body(&page.body[..]))
    }
}

impl For {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "4xx" => Some(Self::Class(4)),
            "5xx" => Some(Self::Class(5)),
            _ if text.len() != 3 => None,
            _ => text.parse().ok().filter(|code| (400..600).contains(code)).map(Self::Status),
        }
    }

    fn is_for(self, status: Status) -> bool {
        match self {
            Self::Status(code) => code == status.code(),
            Self::Class(class) => class == status.class(),
        }
    }
}

impl Page {
    fn read(root: &Root, path: &str) -> io::Result<Self> {
        let path = normalize_path(path.as_bytes())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        let (fd, identity): (OwnedFd, _) = match root.open_path(&path) {
            Ok(Opened::File(fd, identity)) => (fd, identity),
            Ok(Opened::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            Err(OpenError::NotFound) => return Err(io::ErrorKind::NotFound.into()),
            Err(OpenError::Forbidden) => return Err(io::ErrorKind::PermissionDenied.into()),
            Err(OpenError::Exhausted) => return Err(io::Error::other("no descriptor or memory is left")),
            Err(OpenError::Failed(errno)) => return Err(errno.into()),
        };
        if identity.size > MAX_BYTES {
            let text = format!("{} bytes are more than {MAX_BYTES}", identity.size);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(Self { content_type: content_type(&path), body: read_up_to(&fd, identity.size)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::DotFiles;
    use super::*;

    fn read(pages: &[(&str, &str)]) -> Result<ErrorPages, FilesError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("404.html"), "gone").unwrap();
        std::fs::write(dir.path().join("error.txt"), "wrong").unwrap();
        std::fs::write(dir.path().join("large"), vec![0; 300 << 10]).unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        let root = Root::open(dir.path(), DotFiles::Hidden).unwrap();
        let pages: Vec<_> = pages.iter().map(|&(s, p)| (s.to_owned(), p.to_owned())).collect();
        ErrorPages::read(&root, &pages)
    }

    #[test]
    fn a_status_comes_before_its_class() {
        let pages = read(&[("4xx", "/error.txt"), ("404", "/404.html")]).unwrap();
        let kind = |status| {
            let response = pages.response(status)?;
            response.field("content-type").map(ToOwned::to_owned)
        };
        assert_eq!(kind(Status::NOT_FOUND).as_deref(), Some("text/html; charset=utf-8"));
        assert_eq!(kind(Status::FORBIDDEN).as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(kind(Status::BAD_GATEWAY), None);
    }

    #[test]
    fn a_page_that_cannot_be_is_an_error_that_says_why() {
        for (status, path, why) in [
            ("200", "/404.html", "400 to 599"),
            ("40", "/404.html", "400 to 599"),
            ("+404", "/404.html", "400 to 599"),
            ("404", "/none.html", "not found"),
            ("404", "/dir", "directory"),
            ("404", "/large", "307200 bytes"),
            ("404", "404.html", "not absolute"),
            ("404", "/../404.html", "leaves the root"),
        ] {
            let error = read(&[(status, path)]).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(format!("{error}: {source}").contains(why), "{error}: {source}");
        }
    }
}
