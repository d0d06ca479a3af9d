//! Paths below a root of the test's own.

use std::os::unix::fs::symlink;

use test_support::fuse::{apart, mount};
use test_support::{Fuse, Served, Skip, skip};

use super::*;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `outside` beside `root`, which holds `etc/inside`.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("root/etc/deep")).unwrap();
        std::fs::write(folder.path().join("outside"), "outside").unwrap();
        std::fs::write(folder.path().join("root/etc/inside"), "inside").unwrap();
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What both ways of opening agree on.
    fn read(&self, path: &str) -> Result<String, String> {
        let open = |walks| {
            let root = Root { walks, ..Root::open(&self.root()).unwrap() };
            let mut text = String::new();
            let file = root.open_file(Path::new(path)).map_err(|error| error.to_string());
            file.map(|mut file| file.read_to_string(&mut text)).map(|_| text)
        };
        let (kernel, walked) = (open(false), open(true));
        assert_eq!(kernel, walked, "{path}");
        kernel
    }
}

#[test]
fn links_and_parents_stay_below_the_root() {
    let place = Place::new();
    let link = |to: &str, from: &str| symlink(to, place.root().join(from)).unwrap();
    let outside = place.folder.path().join("outside");
    link(outside.to_str().unwrap(), "absolute");
    link("../../../outside", "relative");
    link("/etc/inside", "etc/deep/home");
    link("../inside", "etc/deep/up");
    link("../..", "etc/deep/top");
    assert_eq!(place.read("etc/inside").as_deref(), Ok("inside"));
    assert_eq!(place.read("/etc/inside").as_deref(), Ok("inside"));
    assert_eq!(place.read("etc/deep/home").as_deref(), Ok("inside"), "absolute for the process");
    assert_eq!(place.read("etc/deep/up").as_deref(), Ok("inside"));
    assert_eq!(place.read("etc/deep/top/etc/./inside").as_deref(), Ok("inside"));
    for path in ["absolute", "relative", "../outside", "etc/../../outside", "etc/deep/top/../outside"] {
        let error = place.read(path).unwrap_err();
        assert!(error.contains("No such file"), "{path}: {error}");
    }
}

#[test]
fn links_that_the_kernel_makes_lead_nowhere() {
    // The root of this very process holds its descriptors: those lead out of any root.
    let place = Place::new();
    let file = File::open(place.folder.path().join("outside")).unwrap();
    let root = Root::open(Path::new("/")).unwrap();
    let error = root.open_file(&by_descriptor(&file)).unwrap_err();
    assert!(matches!(&error, OpenError::System(error) if error.raw_os_error() == Some(libc::ELOOP)), "{error}");
}

#[test]
fn what_is_no_regular_file_is_refused_without_a_wait() {
    let place = Place::new();
    rustix::fs::mkfifoat(CWD, place.root().join("fifo"), Mode::RWXU).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(place.root().join("socket")).unwrap();
    assert_eq!(place.read("fifo").unwrap_err(), "not a regular file but a FIFO");
    assert_eq!(place.read("socket").unwrap_err(), "not a regular file but a socket");
    assert_eq!(place.read("etc").unwrap_err(), "not a regular file but a directory");
    assert_eq!(place.read("/").unwrap_err(), "not a regular file but a directory");
    assert_eq!(place.read("..").unwrap_err(), "not a regular file but a directory");
    drop(socket);
    let device = open_regular(Path::new("/dev/null"), &Mounts::unguarded()).unwrap_err();
    assert_eq!(device.to_string(), "not a regular file but a device");
}

#[test]
fn what_is_missing_is_told_from_what_is_refused() {
    let place = Place::new();
    let root = Root::open(&place.root()).unwrap();
    assert!(root.open_file(Path::new("nothing")).unwrap_err().is_not_found());
    assert!(root.open_file(Path::new("etc/inside/below")).unwrap_err().is_not_found());
    assert!(!root.open_file(Path::new("etc")).unwrap_err().is_not_found());
}

#[test]
fn a_text_is_read_up_to_a_limit_and_folders_are_listed() {
    let place = Place::new();
    let read = |path: &str, limit| read_below(&place.root(), Path::new(path), limit).map_err(|error| error.to_string());
    assert_eq!(read("etc/inside", 100).as_deref(), Ok(&b"inside"[..]));
    assert_eq!(read("etc/inside", 2).as_deref(), Ok(&b"in"[..]));
    assert!(read("../outside", 100).is_err());
    symlink("/", place.root().join("etc/deep/root")).unwrap();
    let root = Root::open(&place.root()).unwrap();
    let names = |path: &str| {
        let folder = root.open_folder(Path::new(path)).map_err(|error| error.to_string())?;
        let names = folder.entries().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        Ok::<_, String>(names.collect::<Vec<_>>())
    };
    assert_eq!(names("etc/deep/root").unwrap(), ["etc"], "not that of the host");
    assert!(names("etc/inside").unwrap_err().contains("Not a directory"));
}

#[test]
fn a_circle_of_links_and_a_deep_path_end() {
    let place = Place::new();
    symlink("b", place.root().join("a")).unwrap();
    symlink("a", place.root().join("b")).unwrap();
    assert!(place.read("a").unwrap_err().contains("symbolic links"));
    let root = Root { walks: true, ..Root::open(&place.root()).unwrap() };
    std::fs::create_dir_all(place.root().join("d/".repeat(MAX_FOLDERS + 2))).unwrap();
    let error = root.open_file(Path::new(&"d/".repeat(MAX_FOLDERS + 2))).unwrap_err();
    assert!(matches!(&error, OpenError::System(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG)), "{error}");
}

#[test]
fn a_guarded_root_asks_no_program_of_a_user_for_a_name_or_for_attributes() {
    let body = || -> Result<(), Skip> {
        let place = Place::new();
        let below = |path: &str| place.root().join(path);
        for folder in ["served", "other"] {
            std::fs::create_dir(below(folder)).unwrap();
        }
        std::fs::write(below("file"), "").unwrap();
        let mounts = Mounts::of(Path::new("/proc"), std::process::id());
        let folder = Fuse::mount(&below("served"), Served::Folder)?;
        let file = Fuse::mount(&below("file"), Served::File(b"text".to_vec()))?;
        mount("other", &below("other"), "tmpfs", 0, "size=1m")?;
        std::fs::write(below("other/file"), "text").unwrap();
        symlink("/served/name", below("other/link")).unwrap();
        symlink("/etc/inside", below("other/back")).unwrap();
        for walks in [false, true] {
            let root = Root { walks, ..Root::guarded(&place.root(), &mounts).unwrap() };
            // Another mount alone does no harm.
            for path in ["etc/inside", "other/file", "other/back", "other/../etc/deep/../inside"] {
                assert!(root.open_file(Path::new(path)).is_ok(), "{path}");
                assert!(root.identity_of(Path::new(path)).is_ok(), "{path}");
            }
            for path in ["file", "served", "served/name", "other/link", "etc/../served/name"] {
                let served = |error| matches!(error, OpenError::Unasked(Unasked::Served(kind)) if kind == "fuse");
                assert!(root.open_file(Path::new(path)).is_err_and(served), "{path}");
                assert!(root.identity_of(Path::new(path)).is_err_and(served), "{path}");
                assert!(root.open_folder(Path::new(path)).is_err_and(served), "{path}");
            }
            let other = root.open_folder(Path::new("other")).unwrap();
            assert!(other.open_file(Path::new("file")).is_ok(), "its mount is known");
        }
        assert!(matches!(Root::guarded(&below("served"), &mounts), Err(OpenError::Unasked(_))));
        assert!(matches!(open_regular(&below("file"), &mounts), Err(OpenError::Unasked(_))));
        assert!(matches!(identity_of(&below("file"), &mounts), Err(OpenError::Unasked(_))));
        assert_eq!((folder.asked(), file.asked()), (0, 0));
        // Whoever is not guarded does ask.
        assert!(Root::open(&place.root()).unwrap().open_file(Path::new("file")).is_ok());
        assert!(file.asked() > 0);
        Ok(())
    };
    if let Err(reason) = apart(0, body) {
        skip("a_guarded_root_asks_no_program_of_a_user_for_a_name_or_for_attributes", reason);
    }
}
