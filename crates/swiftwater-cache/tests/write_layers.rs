//! Values that are written to the source by way of a region with layers: no layer serves what has been replaced, nor what the
//! source has never got.

mod common;
mod sink_common;

use std::path::Path;

use common::{Gates, settle, spawn};
use sink_common::{Ends, Source, press};
use swiftwater_cache::{Cache, Disk, Region, Writes, dep};

fn cache(directory: &Path) -> Cache {
    Cache::builder().persist(directory.join("versions")).build().unwrap()
}

fn rows<S: Into<Writes<Source>>>(cache: &Cache, directory: &Path, writes: S) -> Region<u64, u32> {
    let disk = Disk::builder(directory.join("disk")).capacity(4 << 20).build().unwrap();
    cache.region("rows").memory(1).schema(1).layer(disk).writes(writes).build().unwrap()
}

#[tokio::test]
async fn a_layer_keeps_what_was_stored_through_and_not_what_was_replaced_around() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(directory.path()), Source::default());
    let region = rows(&cache, directory.path(), Writes::through(source.clone()));
    assert_eq!(source.read(&region, 1).await, 0);
    region.store(1, 7).await.unwrap();
    press(&region, 1);
    settle().await;
    source.loads();
    assert_eq!(source.read(&region, 1).await, 7);
    assert!(source.loads().is_empty(), "the layer had it");
    cache.close().await.unwrap();
    drop((region, cache));

    let cache = self::cache(directory.path());
    let region = rows(&cache, directory.path(), Writes::around(source.clone()));
    assert_eq!(source.read(&region, 1).await, 7);
    assert!(source.loads().is_empty(), "the layer still has it");
    region.store(1, 8).await.unwrap();
    assert_eq!(source.read(&region, 1).await, 8);
}

#[tokio::test]
async fn whatever_happens_to_the_key_meanwhile_no_layer_has_the_value() {
    type Happens = fn(&Cache, &Region<u64, u32>);
    let happens: [(&str, Happens); 5] = [
        ("nothing", |_, _| ()),
        ("invalidate", |_, rows| {
            rows.invalidate(&1);
        }),
        ("by name", |cache, rows| {
            cache.invalidate(rows.dep(&1));
        }),
        ("a dependency", |cache, _| {
            cache.invalidate(dep!("tariff", 7));
        }),
        ("the region", |cache, rows| {
            cache.invalidate(rows.whole());
        }),
    ];
    for (what, happens) in happens {
        let directory = tempfile::tempdir().unwrap();
        let (cache, gates) = (cache(directory.path()), Gates::new());
        let source = Source::gated(&gates);
        let region = rows(&cache, directory.path(), Writes::through(source.clone()));
        let store = {
            let region = region.clone();
            spawn(async move { region.store_with(1, 7, |entry| entry.depends_on(dep!("tariff", 7))).await })
        };
        settle().await;
        happens(&cache, &region);
        gates.open(Ends::Applied);
        store.await.unwrap().unwrap();
        assert_eq!(region.get(&1).is_some(), what == "nothing", "{what}");
        press(&region, 1);
        settle().await;
        assert_eq!(source.read(&region, 1).await, 7);
        assert_eq!(source.loads().is_empty(), what == "nothing", "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_is_served_by_a_layer_whatever_the_source_does() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(directory.path()), Source::default());
    let region = rows(&cache, directory.path(), Writes::behind(source.clone()));
    source.set_down(true);
    region.store(1, 7).await.unwrap();
    region.store(2, 8).await.unwrap();
    press(&region, 1);
    settle().await;
    press(&region, 2);
    settle().await;
    assert_eq!(source.read(&region, 1).await, 7);
    let load = async move |_| -> Result<Vec<(u64, u32)>, _> { unreachable!("the layer has it") };
    let found = region.get_or_load_many(&[2], load).await.unwrap();
    assert_eq!(**found[0].as_ref().unwrap(), 8);
    assert!(source.loads().is_empty());
}

#[tokio::test]
async fn after_a_restart_no_layer_serves_what_the_source_has_never_got() {
    let directory = tempfile::tempdir().unwrap();
    let (cache, source) = (cache(directory.path()), Source::default());
    let region = rows(&cache, directory.path(), Writes::behind(source.clone()));
    source.refuse(1, true);
    region.store(1, 7).await.unwrap();
    region.store(2, 8).await.unwrap();
    assert_eq!(cache.close().await.unwrap_err().unwritten(), Some(("rows", 1)));

    // The process ends here.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("disk")).unwrap();
    std::fs::copy(directory.path().join("versions"), copy.path().join("versions")).unwrap();
    for file in std::fs::read_dir(directory.path().join("disk")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join("disk").join(file.file_name())).unwrap();
    }
    let cache = self::cache(copy.path());
    let region = rows(&cache, copy.path(), Writes::behind(source.clone()));
    assert_eq!(source.read(&region, 2).await, 8);
    assert!(source.loads().is_empty(), "what has arrived the layer still serves");
    assert_eq!(source.read(&region, 1).await, 0);
}
