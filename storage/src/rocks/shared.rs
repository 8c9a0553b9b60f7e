//! What all databases of a process share: block cache, write buffers, thread pool; and their options.
//!
//! Owns: every RocksDB option. Sixty databases in one process must be cheap, so memory and threads
//! are budgeted here once, and each database keeps little of its own.

use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Env, LogLevel, Options, WriteBufferManager,
};

use crate::StorageError;
use crate::rocks::{compactors, stall};

/// How many times as many table files a state keeps open that is not compacted: each flush leaves one, of which every read asks the
/// filter. A file that is not open is opened for that, and another one closed; where there are a few more than may be open, each
/// read does so for nearly all of them. Once it is compacted it has few.
const QUIET_FILES: i32 = 4;

/// The budget of a process.
#[derive(Debug, Clone, Copy)]
pub struct ResourceLimits {
    /// Memory for blocks read from disk.
    pub block_cache_bytes: usize,
    /// Memory for all write buffers together; the fullest databases flush when it is used up.
    pub write_buffers_bytes: usize,
    /// Size of one database's write buffer.
    pub write_buffer_bytes: usize,
    /// Threads that flush, and about as many that compact and stand back behind all others, for all databases together.
    pub background_threads: u16,
    /// Table files that one database keeps open; four times as many where it is not compacted.
    pub open_files_max: u16,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffers_bytes: 256 << 20,
            write_buffer_bytes: 16 << 20,
            background_threads: 4,
            open_files_max: 64,
        }
    }
}

/// Handles of everything that is shared; clones are cheap. Make one per process.
#[derive(Clone)]
pub struct SharedResources(Arc<Shared>);

struct Shared {
    cache: Cache,
    write_buffers: WriteBufferManager,
    env: Env,
    limits: ResourceLimits,
}

/// What a database is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Point reads, no WAL: what was not flushed is replayed from the log.
    State,
    /// Appends and deletes of ranges, WAL on.
    Log,
}

impl SharedResources {
    /// Allocates within `limits`.
    pub fn new(limits: ResourceLimits) -> Result<Self, StorageError> {
        let mut env =
            Env::new().map_err(|error| StorageError::Io { path: "rocksdb".into(), detail: error.to_string() })?;
        let threads = i32::from(limits.background_threads.max(2));
        compactors::make(&mut env, threads - 1);
        // These flush, and wait for the disk most of the time. Where shards are cut or joined, all nodes of a process make
        // several databases durable at once, and payers wait for the last one.
        env.set_high_priority_background_threads(threads);
        Ok(Self(Arc::new(Shared {
            cache: Cache::new_lru_cache(limits.block_cache_bytes),
            write_buffers: WriteBufferManager::new_write_buffer_manager(limits.write_buffers_bytes, false),
            env,
            limits,
        })))
    }

    /// Bytes of the block cache in use.
    pub fn block_cache_used_bytes(&self) -> usize {
        self.0.cache.get_usage()
    }

    /// Bytes of all write buffers in use.
    pub fn write_buffers_used_bytes(&self) -> usize {
        self.0.write_buffers.get_usage()
    }

    /// The options of a state in which nothing is compacted in the background.
    pub(crate) fn quiet_options(&self, create: bool) -> Result<Options, rocksdb::Error> {
        let mut options = self.options(Profile::State, create)?;
        options.set_disable_auto_compactions(true);
        options.set_max_open_files(i32::from(self.0.limits.open_files_max).saturating_mul(QUIET_FILES));
        Ok(options)
    }

    pub(crate) fn options(&self, profile: Profile, create: bool) -> Result<Options, rocksdb::Error> {
        let limits = &self.0.limits;
        // Without a WAL, closing would flush, which makes stopping slow and hides what a crash
        // would lose; the host flushes explicitly when it wants a quick next start.
        // This call returns fresh options, so it must come before anything shared is attached.
        let mut options = Options::default().get_options_from_string("avoid_flush_during_shutdown=true")?;
        options.create_if_missing(create);
        options.set_error_if_exists(create);
        options.set_env(&self.0.env);
        options.set_write_buffer_manager(&self.0.write_buffers);
        options.set_paranoid_checks(true);
        options.set_write_buffer_size(limits.write_buffer_bytes);
        options.set_max_write_buffer_number(3);
        options.set_max_open_files(i32::from(limits.open_files_max));
        options.set_max_file_opening_threads(1);
        options.set_max_background_jobs(2);
        options.set_max_subcompactions(1);
        options.set_target_file_size_base(32 << 20);
        options.set_max_bytes_for_level_base(128 << 20);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_bytes_per_sync(1 << 20);
        stall::set(&mut options);
        options.set_table_cache_num_shard_bits(2);
        // Housekeeping that would cost a thread, a file or megabytes per database.
        options.set_keep_log_file_num(1);
        options.set_max_log_file_size(256 << 10);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_manifest_preallocation_size(64 << 10);
        options.set_max_manifest_file_size(4 << 20);

        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&self.0.cache);
        table.set_block_size(8 << 10);
        table.set_format_version(5);
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        match profile {
            Profile::State => {
                options.set_compression_type(DBCompressionType::Lz4);
                // Each one rewrites most of a state, whose keys are hashes: half as often is half of that. Reads of keys that
                // are not there are answered by the filters of so many files.
                options.set_level_zero_file_num_compaction_trigger(8);
                options.set_memtable_whole_key_filtering(true);
                options.set_memtable_prefix_bloom_ratio(0.02);
                table.set_bloom_filter(10.0, false);
                table.set_optimize_filters_for_memory(true);
            }
            Profile::Log => {
                // Entries are mostly signatures and ciphertext, and short-lived.
                options.set_compression_type(DBCompressionType::None);
                options.set_max_write_buffer_number(4);
                // An incomplete record at the very end is a crash in the middle of a write that
                // nobody was told about; that nothing else is missing there, the log's own mark of
                // what was acknowledged tells. Anything else damaged is refused: the engine's
                // default would silently drop acknowledged entries behind the damage.
                options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
                options.set_track_and_verify_wals_in_manifest(true);
            }
        }
        options.set_block_based_table_factory(&table);
        Ok(options)
    }
}
