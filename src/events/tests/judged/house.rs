//! One run of the library over a store that outlives it.

use super::super::*;
use super::mutants::Mutant;
use super::seam::Seam;

/// The store beneath.
enum Beneath {
    Memory(Arc<MemoryStore>),
    Folder(Folder),
}

/// See the module.
pub(super) struct House {
    pub(super) events: Events,
    pub(super) seam: Arc<Seam>,
    beneath: Beneath,
    tasks: Tasks,
    clock: Clock,
    config: config::App,
    mutant: Option<Mutant>,
}

impl House {
    pub(super) async fn begin(in_folder: bool, config: config::App, mutant: Option<Mutant>, seed: u64) -> Self {
        let clock = clock();
        let beneath = match in_folder {
            true => Beneath::Folder(Folder::open(tempfile::tempdir().unwrap(), &clock).await),
            false => Beneath::Memory(Arc::default()),
        };
        Self::open(beneath, clock, config, (mutant, seed)).await
    }

    async fn open(beneath: Beneath, clock: Clock, config: config::App, (mutant, seed): (Option<Mutant>, u64)) -> Self {
        let store: Arc<dyn Store> = match &beneath {
            Beneath::Memory(store) => store.clone(),
            Beneath::Folder(folder) => folder.store.clone(),
        };
        let is_real = matches!(beneath, Beneath::Folder(_));
        let (seam, tasks) = (Arc::new(Seam::new((store, is_real), mutant, seed)), Tasks::new());
        let vendor: Arc<Script> = Arc::default();
        let events = Events::with_source(seam.clone(), vendor, tasks.clone(), clock.clone(), Metrics::new());
        events.apply(std::slice::from_ref(&config), &config::Upstream::default(), &[]).await.unwrap();
        Self { events, seam, beneath, tasks, clock, config, mutant }
    }

    pub(super) fn stream(&self) -> Arc<AppStream> {
        self.events.stream(&app(), STREAM).unwrap()
    }

    pub(super) fn log(&self) -> Arc<Log> {
        Arc::clone(&self.stream().log)
    }

    pub(super) fn cursor(&self, at: u64) -> Cursor {
        self.log().cursor(Sequence(at))
    }

    /// The number of the oldest entry, and of the next.
    pub(super) fn range(&self) -> (u64, u64) {
        let range = self.log().range();
        (range.start.0, range.end.0)
    }

    /// Stops in order.
    pub(super) async fn stop(self, seed: u64) -> Self {
        assert_eq!(self.tasks.finish(Duration::from_secs(30)).await, 0);
        self.seam.stops();
        self.events.flush().await.unwrap();
        self.seam.close(self.clock.wall_ms()).await.unwrap();
        self.reopen(true, seed).await
    }

    /// Its tasks are dropped, wherever they are: nothing is written any more.
    pub(super) async fn drop_tasks(&self) {
        self.tasks.finish(Duration::ZERO).await;
    }

    /// Begins anew over what is stored. Nobody else may hold anything of the run before.
    pub(super) async fn reopen(self, clean: bool, seed: u64) -> Self {
        let Self { events, seam, beneath, tasks, clock, config, mutant } = self;
        drop((events, seam, tasks));
        let beneath = match beneath {
            Beneath::Memory(store) => Beneath::Memory(Arc::new(store.reopened(clean.then(|| clock.wall_ms())))),
            Beneath::Folder(Folder { folder, store, writer }) => {
                drop(store);
                // However long it takes: time goes on by itself when nobody has anything to do.
                writer.finish_until(std::future::pending()).await;
                Beneath::Folder(Folder::open(folder, &clock).await)
            }
        };
        Self::open(beneath, clock, config, (mutant, seed)).await
    }
}
