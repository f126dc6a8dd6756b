//! A PostgreSQL of its own, for tests that change what is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cluster::server_bin;
use crate::os::{as_owner, run};

/// A copy of the PostgreSQL under test whose files can be changed.
pub struct Tree {
    home: PathBuf,
    /// Its programs.
    pub bin: PathBuf,
    /// The extension's library.
    pub library: PathBuf,
    extension: PathBuf,
}

impl Tree {
    /// A copy in a directory of this name, gone when it is dropped.
    pub fn copy(name: &str) -> Self {
        let home = std::env::temp_dir().join(format!("webhook_pg-e2e-{}-{name}", std::process::id()));
        run(as_owner("mkdir").arg("-m").arg("0755").arg(&home));
        let bin = fs::canonicalize(server_bin()).expect("the server's bin directory");
        let share = fs::canonicalize(pg_config(&bin, "--sharedir")).expect("its share directory");
        let top: PathBuf = bin.iter().zip(share.iter()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
        // Wheels keep the libraries that their programs want beside the tree, in a directory of this name.
        let has_libraries = |dir: &&Path| {
            let mut names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.any(|name| name.to_string_lossy().ends_with(".libs"))
        };
        let top = top.ancestors().take(4).find(has_libraries).unwrap_or(&top).to_owned();
        let root = home.join("tree");
        // PostgreSQL finds its files from where its program stands. Links cost nothing where they are possible.
        let copied =
            Command::new("cp").arg("-al").arg(&top).arg(&root).output().is_ok_and(|o| o.status.success());
        if !copied {
            let _ = fs::remove_dir_all(&root);
            run(Command::new("cp").arg("-aL").arg(&top).arg(&root));
        }
        let inside = |path: &Path| root.join(path.strip_prefix(&top).expect("a path in the tree"));
        let libraries = fs::canonicalize(pg_config(&bin, "--pkglibdir")).expect("its library directory");
        Self {
            bin: inside(&bin),
            library: inside(&libraries).join("webhook_pg.so"),
            extension: inside(&share).join("extension"),
            home,
        }
    }

    /// Puts a file of the extension there.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.extension.join(name);
        // Never through a link into the original.
        let _ = fs::remove_file(&path);
        fs::write(path, text).expect("write into the copied tree");
    }

    /// The install script of the version under test, and its number.
    pub fn current(&self) -> (String, String) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let script = fs::read_to_string(self.extension.join(format!("webhook_pg--{version}.sql")));
        (script.expect("the installed script"), version)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn pg_config(bin: &Path, what: &str) -> String {
    let output = run(Command::new(bin.join("pg_config")).arg(what));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
