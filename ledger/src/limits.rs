//! Every limit of Seamark, in one place, with the relations between them asserted at compile time.

/// Moves in one transaction.
pub const MOVES_MAX: usize = 64;
/// Groups that may vote on one transaction.
pub const VOTER_GROUPS_MAX: usize = 8;
/// Encoded transaction body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Free text of a transaction.
pub const MEMO_BYTES_MAX: usize = 256;
/// Keys of one authorisation.
pub const AUTH_KEYS_MAX: usize = 16;
/// Authorisations that may come with one transaction: one for each move is enough.
pub const WITNESSES_MAX: usize = MOVES_MAX;
/// A signed transaction on the wire: its body and its witnesses.
pub const SIGNED_TX_BYTES_MAX: usize = BODY_BYTES_MAX + WITNESSES_MAX * WITNESS_BYTES_MAX + 64;
/// A signed transaction together with the openings of its hidden slots.
pub const SUBMISSION_BYTES_MAX: usize = 2 * SIGNED_TX_BYTES_MAX;
/// Key of an entry of an account's data.
pub const DATA_KEY_BYTES_MAX: usize = 64;
/// Value of an entry of an account's data.
pub const DATA_VALUE_BYTES_MAX: usize = 1024;
/// What the owner of a record says about it.
pub const RECORD_METADATA_BYTES_MAX: usize = 1024;
/// Records of one account.
pub const RECORDS_MAX: u32 = 65_536;
/// Parties that one record is ever granted to.
pub const GRANTEES_MAX: u32 = 1024;
/// Changes of what one party may do with one record, kept for ever; the last can only revoke.
pub const GRANT_CHANGES_MAX: usize = 64;
/// A grant's scope.
pub const SCOPE_BYTES_MAX: usize = 64;
/// How far ahead the deadline of a hash-lock may lie: a slip of units must not lock funds for ever.
pub const LOCK_FOR_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1000;
/// Claims of undecided transactions on one account, other than holds.
pub const CLAIMS_MAX: usize = 256;
/// Supply of one asset: half of what an amount can be, see [`SYNC_DEBITS_MAX`].
pub const SUPPLY_MAX: u128 = u128::MAX / 2;
/// Undecided synchronous debits of one asset in one group. Of a synchronous payment the payee's group
/// may post its side first, and the payee may pay the amount back to the payer's group while the
/// debit is still held there. So a group may have as much more than the supply as such debits hold.
pub const SYNC_DEBITS_MAX: u128 = u128::MAX / 2;
/// How long after `valid_until` a vote register is kept at least.
pub const REGISTER_GRACE_MS: u64 = 60_000;
/// A register that cannot be dropped yet is looked at again after this.
pub const REGISTER_RECHECK_MS: u64 = 10_000;
/// Registers whose deadline is looked at in one block.
pub const SWEEP_MAX: usize = 1024;
/// One witness: `k`, keys of 33 bytes, signatures of 65 bytes with their index.
pub const WITNESS_BYTES_MAX: usize = 16 + AUTH_KEYS_MAX * (33 + 65);
/// How far in the future `valid_until` may lie.
pub const VALID_FOR_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// How long after `valid_until` a receipt is certain to be kept.
pub const RECEIPT_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Members of a committee that a Byzantine engine orders for, at least. With 3f + 1 members f may lie; with fewer than
/// four none may, and the group would pay for more messages than Raft's and be protected against nothing.
pub const BFT_MEMBERS_MIN: usize = 4;
/// Proofs that one member of one committee has voted twice, as they are kept; more add nothing.
pub const EVIDENCE_PER_MEMBER_MAX: usize = 3;
/// Messages that two shards had sent each other before they were joined, as they are taken in one block of the shard
/// that they were joined into.
pub const SELF_MAIL_MAX: usize = 4096;
/// Stretches of inherited chains that a shard knows of.
pub const SPINE_MAX: usize = 256;
/// One sequenced entry.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Transactions in one sequenced entry.
pub const BATCH_TXS_MAX: usize = 8192;
/// How far a block's time may lie ahead of a replica's clock.
pub const BLOCK_AHEAD_MS_MAX: u64 = 500;
/// How old the stamp of an entry may be when a member of a Byzantine group is to vote for it. A leader's entries
/// wait for those before them, and for rounds that end without a value; what is older than this was kept back,
/// or is of a leader whose clock is wrong.
pub const STAMP_AGE_MS_MAX: u64 = 5_000;
/// Messages of one mail stream that wait for acknowledgement before new transactions are refused.
pub const MAIL_WINDOW_MESSAGES: u64 = 65_536;
/// Messages of one group that wait for acknowledgement before that is told as a problem.
pub const MAIL_WAITS_MAX: u64 = MAIL_WINDOW_MESSAGES / 2;
/// Blocks that a replica may be behind before that is told as a problem.
pub const LAG_BLOCKS_MAX: u64 = 64;
/// Blocks without a certificate before that is told as a problem.
pub const UNCERTIFIED_BLOCKS_MAX: u64 = 64;
/// Certificates that a replica remembers to hold, so that it does not check them again: what is in flight between its
/// judge and its machine, many times over. 32 bytes each, kept twice.
pub const CERTIFICATES_KNOWN_MAX: usize = 8192;
/// Messages in one bundle.
pub const BUNDLE_MESSAGES_MAX: usize = 4096;
/// Encoded messages of one bundle.
pub const BUNDLE_BYTES_MAX: usize = 1024 * 1024;
/// Hashes that lead from the end of a bundle to the head of its stream, however long the stream is: the
/// subtrees between two numbers of 64 bits grow to the largest one and shrink again.
pub const BUNDLE_PROOF_MAX: usize = 126;
/// One gRPC message.
pub const GRPC_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Calls with messages of a Byzantine group that one of its nodes may have open at another one. It makes one at a time; one
/// that it has given up may still be open.
pub const PEER_MESSAGE_CALLS_MAX: usize = 4;
/// Other calls of a Byzantine group that one of its nodes may have open at another one.
pub const PEER_QUESTIONS_MAX: usize = 8;
/// Bytes of the messages that one caller of a node's port for nodes has begun and not ended. As many as sixteen of the
/// largest; more than a node has on its way to another one that is far behind in several groups.
pub const PEER_BEGUN_BYTES_MAX: usize = 16 * GRPC_BYTES_MAX;
/// Calls that one caller of this port has begun and not ended. Of most groups a node has a few on their way to another one.
pub const PEER_BEGUN_CALLS_MAX: usize = 4096;
/// Connections that a node, by the key of its certificate, has to another one. One is enough; those that broke off may not
/// have been noticed yet.
pub const PEER_CONNECTIONS_MAX: usize = 16;
/// Snapshots of one group that a node lends at the same time. Any number of borrowers share one.
pub const LENT_MAX: usize = 8;
/// How far ahead the entry may be that a member of a Byzantine group is asked to make a snapshot behind.
pub const MEETING_AHEAD_MAX: u64 = 1024;
/// Nodes for which a replica makes such snapshots: more than one committee and those that take its seats over.
pub const MEETINGS_MAX: usize = 4 * COMMITTEE_MAX;
/// Snapshots that it makes for one of them in half a minute.
pub const MEETING_SNAPSHOTS_MAX: u32 = 8;
/// How fast a snapshot has to travel, in bytes a second. A group's blocks have to be far faster.
pub const LENT_BYTES_PER_S_MIN: u64 = 1024 * 1024;
/// How much longer than that a transfer may take, in milliseconds.
pub const LENT_GRACE_MS: u64 = 30_000;
/// Bytes of all files of one snapshot.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 40;
/// So much of a disk is left free by a snapshot that arrives, in bytes: everything else on the node needs room, too.
pub const SNAPSHOT_RESERVE_BYTES: u64 = 1 << 30;
/// Of a small disk it is one part of so many.
pub const SNAPSHOT_RESERVE_PARTS: u64 = 32;
/// How much of table files a node rewrites at most to give back the space of accounts that a shard has left to its sibling, in
/// bytes a second, where its configuration says nothing else.
pub const TRIM_BYTES_PER_S: u64 = 4 << 20;
/// Bytes of keys whose space is given back in one piece. The table files that it lies in are rewritten as a whole.
pub const TRIM_PIECE_BYTES: u64 = 4 << 20;
/// Pieces are not divided any more under a prefix of so many bits.
pub const TRIM_PREFIX_MAX: u8 = 40;
/// Members of one committee.
pub const COMMITTEE_MAX: usize = 64;
/// Organisations that found one group.
pub const FOUNDERS_MAX: usize = 64;
/// What a founded group's own machine starts from.
pub const CHARTER_BYTES_MAX: usize = 16 * 1024;
/// Groups that one group may exchange mail with.
pub const PEERS_MAX: usize = 4096;
/// Assets whose balance stands inside the account record; further ones have entries of their own.
pub const INLINE_BALANCES_MAX: usize = 8;
/// Balances of one account in one answer.
pub const BALANCES_SHOWN_MAX: usize = 32_768;
/// Assets of one account whose balances, restrictions or limits are shown beside its record.
pub const ACCOUNT_LINES_MAX: usize = 4096;
/// Entries of one kind beside an account's record that are counted, to say how many are not shown.
pub const LINES_COUNTED_MAX: usize = 32_768;
/// Accounts in one question.
pub const ACCOUNTS_ASKED_MAX: usize = 8192;
/// Lines in one page of an account's history.
pub const HISTORY_LINES_MAX: usize = 1000;
/// One line of an account's history in an answer.
pub const HISTORY_LINE_BYTES_MAX: usize = 128;
/// Values and proof of one answer to a read; the rest of a message is for what carries them.
pub const ANSWER_BYTES_MAX: usize = GRPC_BYTES_MAX - 64 * 1024;
/// Entries of an account's data in one answer.
pub const DATA_PAGE_ENTRIES_MAX: usize = 1024;
/// Characters of an asset symbol.
pub const SYMBOL_BYTES_MAX: usize = 16;
/// Characters of an asset name.
pub const NAME_BYTES_MAX: usize = 64;
/// Decimals an asset may have.
pub const DECIMALS_MAX: u8 = 36;
/// Siblings in a Merkle path over the items of a block.
pub const MERKLE_PATH_MAX: usize = 32;
/// Further sets of witnesses over one body that may be under way at once. The txid does not cover the
/// witnesses, so whoever knows a body can send it with others.
pub const RIVALS_MAX: usize = 8;
/// Transactions of clients that wait at one group's leader before new ones are shed.
pub const INGEST_QUEUE_TXS: usize = 65_536;
/// What the clients of one organisation may have in flight over one router, in number and in bytes, as a multiple of what is
/// left free behind that. With one, an organisation alone has half of all at most, two have a third each, and one that has
/// nothing there yet finds room as long as there is any.
pub const ORG_FLIGHTS_PER_FREE: usize = 1;
/// Clock distance from the median at which a node raises an alarm and gives up leadership.
pub const CLOCK_SKEW_MS_MAX: u64 = 500;
/// Bytes of transactions that have arrived for one group and are not checked yet.
pub const ARRIVALS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of transactions that one group's leader has taken and that have no fate yet: they wait for a
/// place in an entry, or are in one.
pub const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;
/// TLS handshakes that one port makes at the same time; further callers wait for their turn.
pub const HANDSHAKES_MAX: usize = 1024;
/// Those of them with callers from one source; further ones are hung up on.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 128;
/// Bytes of answers that wait for one caller. Beyond it the caller is cut off: it does not read, and
/// finds its fates by sending the same bytes again.
pub const REPLIES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Answers in one message: with the largest receipt each they fit.
pub const REPLY_EVENTS_MAX: usize = 2048;
/// The largest answer: a receipt with mail for every move, or a refusal with its texts.
pub const REPLY_EVENT_BYTES_MAX: usize = 2048;

const _: () =
    assert!(SUPPLY_MAX.checked_add(SYNC_DEBITS_MAX).is_some(), "what a group has of an asset fits into an amount");
const _: () = assert!(SIGNED_TX_BYTES_MAX < BATCH_BYTES_MAX, "any transaction fits into a batch");
const _: () = assert!(SUBMISSION_BYTES_MAX < BATCH_BYTES_MAX, "also with its openings");
const _: () =
    assert!(SIGNED_TX_BYTES_MAX < BUNDLE_BYTES_MAX, "a vote, which carries the transaction, fits into a bundle");
const _: () =
    assert!(REGISTER_GRACE_MS < RECEIPT_KEPT_MS, "a register is dropped while its receipt is certain to be kept");
const _: () = assert!(VALID_FOR_MS_MAX < LOCK_FOR_MS_MAX, "a lock can outlive the transaction that claims it");
const _: () = assert!(
    GRANT_CHANGES_MAX * (SCOPE_BYTES_MAX + 64) < GRPC_BYTES_MAX / 64,
    "all that a party was ever granted is a small leaf"
);
const _: () = assert!(BATCH_BYTES_MAX < GRPC_BYTES_MAX, "any entry fits into a message");
const _: () =
    assert!(2 * CLOCK_SKEW_MS_MAX < STAMP_AGE_MS_MAX, "two clocks that are both good enough find one stamp good");
const _: () =
    assert!(BALANCES_SHOWN_MAX * (48 + 57) < GRPC_BYTES_MAX / 2, "balances and their proof fit into a message");
const _: () = assert!(
    BUNDLE_BYTES_MAX + BUNDLE_MESSAGES_MAX * 4 + BUNDLE_PROOF_MAX * 32 < BATCH_BYTES_MAX / 2,
    "a bundle fits into a batch, and so much again is left for its certificate"
);
const _: () = assert!(
    DATA_PAGE_ENTRIES_MAX * (DATA_KEY_BYTES_MAX + DATA_VALUE_BYTES_MAX + 8) + ACCOUNT_LINES_MAX * 128
        < ANSWER_BYTES_MAX,
    "an account with a page of its data fits into a message"
);
const _: () = assert!(ACCOUNT_LINES_MAX < LINES_COUNTED_MAX, "what is not shown can be counted");
const _: () =
    assert!(HISTORY_LINES_MAX * HISTORY_LINE_BYTES_MAX < ANSWER_BYTES_MAX, "a page of history fits into a message");
const _: () = assert!(ACCOUNTS_ASKED_MAX * 24 < GRPC_BYTES_MAX, "a question for accounts fits into a message");
const _: () = assert!((BUNDLE_MESSAGES_MAX as u64) < MAIL_WINDOW_MESSAGES, "a bundle fits into the window");
const _: () = assert!(
    SNAPSHOT_BYTES_MAX <= u64::MAX / 4,
    "a snapshot that is received, the copy of it that is checked, and the reserve can be added up"
);
const _: () = assert!(VOTER_GROUPS_MAX <= MOVES_MAX, "each voter group has a move");
const _: () = assert!(1 << MERKLE_PATH_MAX as u64 > BATCH_TXS_MAX as u64, "a path reaches every item of a block");
const _: () = assert!(ORG_FLIGHTS_PER_FREE > 0, "an organisation may have something in flight");
const _: () = assert!(ARRIVALS_BYTES_MAX <= WAITING_BYTES_MAX, "what has arrived can be taken");
const _: () =
    assert!(HANDSHAKES_PER_SOURCE_MAX * 4 <= HANDSHAKES_MAX, "a few sources that are silent leave turns for others");
const _: () = assert!(ARRIVALS_BYTES_MAX / INGEST_QUEUE_TXS >= 1024, "of usual transactions the number is the bound");
const _: () = assert!(REPLY_EVENTS_MAX * REPLY_EVENT_BYTES_MAX < GRPC_BYTES_MAX, "a message of answers fits");
const _: () = assert!(TRIM_PREFIX_MAX <= 64, "a prefix has no more bits");
const _: () = assert!(TRIM_PIECE_BYTES <= TRIM_BYTES_PER_S, "a piece alone is no second's work");
