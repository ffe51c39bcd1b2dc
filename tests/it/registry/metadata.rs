//! Which metadata is believed: rollback, freeze, mix-and-match and what else a server could try.

use std::sync::Mutex;

use super::*;

/// A server that gives out one of several copies of a registry.
struct Copies {
    web: Web,
    shown: Arc<Mutex<PathBuf>>,
}

impl Copies {
    fn serve(first: &Path) -> Self {
        let shown = Arc::new(Mutex::new(first.to_owned()));
        let served = Arc::clone(&shown);
        let web = Web::start(move |seen| file(&served.lock().unwrap(), seen));
        Self { web, shown }
    }

    fn show(&self, dir: &Path) {
        *self.shown.lock().unwrap() = dir.to_owned();
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn what_is_published_is_seen() {
    let published = Published::new(&["1.0.0", "1.1.0"]).await;
    let web = Web::serve(published.public());
    let (mut names, memory) = look(&published, &web, &Memory::default()).await.unwrap();
    names.sort();
    assert_eq!(names, ["counter/counter-1.0.0.tdb", "counter/counter-1.1.0.tdb"]);
    published.add("1.2.0").await;
    published.registry.publish(Validity::default()).await.unwrap();
    let (names, _memory) = look(&published, &web, &memory).await.unwrap();
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn a_registry_never_goes_back() {
    let published = Published::new(&["1.0.0"]).await;
    let old = published.dir.join("old");
    copy(&published.public(), &old);
    published.add("1.1.0").await;
    published.registry.publish(Validity::default()).await.unwrap();
    let copies = Copies::serve(&published.public());
    let (_, memory) = look(&published, &copies.web, &Memory::default()).await.unwrap();
    copies.show(&old);
    let refused = look(&published, &copies.web, &memory).await.unwrap_err();
    assert_eq!(refused.code(), "registry.rollback", "{refused}");
    let (names, _) = look(&published, &copies.web, &Memory::default()).await.unwrap();
    assert_eq!(names.len(), 1, "somebody who has seen nothing cannot know");
}
