//! Rejections: data, replicated, with a stable code, a cause and a fix for people.

crate::rejections! {
    /// Why a transaction or another input was refused. Numbers and codes never change meaning.
    pub enum Reject {
        /// Undecodable bytes.
        Malformed = 1, "malformed", "the bytes are no canonical transaction: wrong version, truncated, trailing bytes or a value out of range", "build and sign it with the client library";
        /// Body too large.
        BodyTooLarge = 2, "body_too_large", "the transaction body is over 64 KiB", "split it into several transactions";
        /// Memo too large.
        MemoTooLarge = 3, "memo_too_large", "the memo is over 256 bytes", "shorten it, or notarise the document's hash instead";
        /// No move, or too many.
        MoveCount = 4, "move_count", "a transaction needs 1 to 64 moves", "split it into several transactions";
        /// Signed for another cluster.
        WrongCluster = 5, "wrong_cluster", "the transaction is for another cluster", "use the profile of this cluster and sign again";
        /// Past its deadline.
        Expired = 6, "expired", "valid_until has passed and the transaction was not executed", "sign it again with a later valid_until; the old one can never execute";
        /// Deadline too far ahead.
        ValidTooLong = 7, "valid_too_long", "valid_until lies more than 24 hours ahead", "use a nearer valid_until and check this machine's clock";
        /// A signature is wrong.
        BadSignature = 8, "bad_signature", "a signature is malformed, has a high S, or is not over this transaction by the named key", "sign again with the account's key";
        /// A debited account did not authorise.
        NotAuthorised = 9, "not_authorised", "a debited account has not authorised the transaction with the keys it has now", "add the missing signature; after a key rotation, sign with the new key";
        /// Zero amount.
        ZeroAmount = 10, "zero_amount", "an amount is zero", "leave the move out or give it an amount";
        /// Arithmetic limit.
        Overflow = 11, "overflow", "the supply of the asset, or its undecided synchronous payments, would exceed 127 bits", "use smaller amounts, or send it again when earlier synchronous payments are decided";
        /// Not enough available.
        InsufficientFunds = 12, "insufficient_funds", "the account's available balance does not cover the debit", "fund the account, or pay less";
        /// Asset not known here.
        UnknownAsset = 13, "unknown_asset", "no asset with this id is known to this group", "check the id; a new asset reaches every shard within moments of its issue";
        /// Only the issuer may.
        NotIssuer = 14, "not_issuer", "only the account that issued the asset may mint or burn it", "let the issuer sign";
        /// Debits are frozen.
        Frozen = 15, "frozen", "the account or the asset is frozen", "ask its issuer or administrator to thaw it";
        /// Wrong group for a leg.
        WrongShard = 16, "wrong_shard", "this group does not own the account", "refresh the layout and send it again with the same txid";
        /// Several voter groups.
        TooManyVoters = 17, "too_many_voter_groups", "accounts that must agree lie in more voter groups than allowed", "use fewer payers in one transaction";
        /// An asset's issue together with other moves.
        MultiVoter = 18, "multi_voter_unsupported", "the issue of an asset cannot be combined with moves of other groups", "issue the asset in a transaction of its own";
        /// Asset exists.
        AssetExists = 19, "asset_exists", "the issuer has already issued an asset under this symbol", "choose another symbol";
        /// Bad asset definition.
        AssetForm = 20, "asset_form", "symbol, name or decimals are outside the limits", "use 1-16 letters, digits, '-' or '.' for the symbol, at most 64 bytes of name and 36 decimals";
        /// Bad authorisation.
        AuthForm = 21, "auth_form", "an authorisation is not canonical: threshold, number or order of keys", "sort the keys, at most 16, threshold from 1 to their number";
        /// Hidden slot without opening.
        HiddenSlot = 22, "hidden_slot", "the transaction hides a move that this group needs to see", "send the opening to this group";
        /// Queue full.
        Busy = 23, "busy", "the group's queue is full", "retry after the hinted delay with the same txid";
        /// Mail stream full.
        PeerBusy = 24, "peer_busy", "mail to the payee's group waits for acknowledgement and its window is full", "retry after the hinted delay with the same txid";
        /// Not the leader.
        NotLeader = 25, "not_leader", "this node does not lead the group", "retry; the router follows the leader";
        /// Group stopped.
        GroupStopped = 26, "group_stopped", "the group stopped on this node after a failure", "see the node's log and 'seamark status'";
        /// Certificate of caller not known.
        AccessDenied = 27, "access_denied", "the caller's certificate does not allow this", "use a certificate issued for this cluster and role";
        /// Unknown group.
        UnknownGroup = 28, "unknown_group", "there is no such group on this node", "see the groups with 'seamark status'; a program refreshes its layout";
        /// Bundle out of order.
        MailGap = 29, "mail_gap", "the bundle starts beyond the cursor", "send mail from the cursor on";
        /// Bundle whose certificate fails.
        MailForged = 30, "mail_forged", "the bundle's certificate, path or chain does not verify", "none; it is dropped and counted";
        /// Committee unknown.
        CommitteeUnknown = 31, "committee_unknown", "the committee that certified this is not known here yet", "none; it is parked until the beacon's update arrives";
        /// Receipt gone.
        OutcomePruned = 32, "outcome_pruned", "the transaction is so old that its outcome may have been pruned", "look it up in an archive; it can not execute again";
        /// Multi-leg conflict.
        TooLate = 33, "timeout", "the outcome was not known in time; the transaction may still execute", "send it again with the same txid";
        /// Not found.
        NotFound = 34, "not_found", "there is no such thing here", "check the id and the group";
        /// Replica not caught up.
        Behind = 35, "behind", "the replica has not reached the asked height", "retry, or ask another node";
        /// Storage failed.
        Storage = 36, "storage", "the node could not read or write its disk", "see the node's log";
        /// Contradictory moves.
        DuplicateMove = 37, "duplicate_move", "a move stands there twice, changes what another one changes, or checks what cannot hold together with another check", "merge the moves, or leave one out";
        /// Something undecided is in the way.
        Conflict = 39, "conflict", "another transaction, which is not decided yet, holds what this one needs", "sign it again with a new salt once the other one is decided";
        /// A condition does not hold.
        CheckFailed = 40, "check_failed", "a condition of the transaction does not hold, or not for every outcome of what is undecided", "look at the account, and sign a transaction that fits it";
        /// Another voter group said no.
        Aborted = 41, "aborted", "another group of the transaction voted no; nothing changed anywhere", "'seamark tx explain' names the group and its reason";
        /// Account limit.
        LimitExceeded = 42, "limit_exceeded", "the debits exceed the limit that the account has set for one transaction", "pay less, or raise the limit first";
        /// Opening does not fit.
        OpeningMismatch = 43, "opening_mismatch", "an opening does not belong to a hidden slot of the transaction, or not to its hash", "send the salt and the move that were hashed when the body was built";
        /// Mail of a group that was rebuilt since.
        DeadIncarnation = 44, "dead_incarnation", "the mail is certified by an incarnation of its group that has ended", "none; the group's present incarnation sends again what still counts";
        /// Bad write.
        WriteForm = 45, "write_form", "a key or value of account data is outside the limits", "use 1-64 bytes of key and at most 1024 bytes of value";
        /// Undecided.
        Undecided = 46, "undecided", "the transaction is prepared here and waits for votes of other groups", "wait; its outcome follows from their votes, without anybody's help";
        /// Registration refused.
        Registry = 38, "registry", "the registry refuses the change: it names an unknown or existing organisation, node or group", "check the ids with 'seamark status'";
        /// The channel is frozen.
        ChannelFrozen = 90, "channel_frozen", "the channel is frozen: it is read and governed, but nothing is written", "propose to thaw it, and send the transaction again";
        /// The channel is closing.
        ChannelClosing = 91, "channel_closing", "the channel is closing and takes nothing new", "none; what is under way is being finished";
        /// The channel is closed.
        ChannelClosed = 92, "channel_closed", "the channel is closed for good", "found another channel";
        /// The asset does not circulate in the channel.
        AssetNotPermitted = 93, "asset_not_permitted", "the channel has not permitted the asset: it can only be transferred out", "propose to permit it under the policy 'asset-issue'";
        /// Refused by the rules of channels.
        ChannelRefused = 94, "channel_refused", "the rules of channels refuse the command; the detail says which", "see the detail's code in docs/errors.md";
        /// Too much for one message.
        AnswerTooLarge = 60, "answer_too_large", "the answer does not fit into one message", "ask for fewer things at once";
        /// Nodes do not suffice.
        Seats = 61, "seats", "the nodes that may take part cannot take the seats of the group", "ask for fewer replicas, or let the members register nodes, or give them capacity";
        /// A group would come to stand on too few.
        Quorum = 62, "quorum_at_risk", "a seat would have to move and no node can take it, so that a group would be left without a quorum, or one failure away from it", "register another node that can take the seat, or give one capacity, and try again";
        /// An organisation that is to go has seats.
        OrgSeated = 63, "org_seated", "a node of the organisation has a seat in a group, or is about to get one", "drain its nodes, and wait until 'seamark beacon show' has no seats of theirs";
        /// An organisation that is to go is in channels.
        OrgInChannels = 64, "org_in_channels", "the organisation is a member of a channel", "let it leave its channels first, or let their members remove it";
        /// Two ballots that prove nothing.
        EvidenceUnproved = 69, "evidence_unproved", "the two ballots do not prove that a member has voted twice: they do not exclude each other, are not signed by a member, or not of a committee that votes", "none; only what a committee can judge is kept";
        /// The engine is in force.
        EngineSame = 89, "engine_same", "the group is ordered by this engine already", "none";
        /// The committee is being changed.
        EngineChanging = 65, "engine_changing", "a change of the group's committee is under way", "wait until it is in force: 'seamark status' shows it";
        /// Too few nodes for the engine.
        EngineNodes = 66, "engine_nodes", "too few nodes have capacity for the members that the engine needs", "register nodes, or give some capacity: bft needs 4 members";
        /// The group would outlive no failure.
        EngineRisk = 67, "engine_at_risk", "behind the switch the group could not bear one failed member", "add nodes first, so that the committee of the new engine tolerates one";
        /// Too few members have a vote.
        EngineVotes = 165, "engine_votes", "so few members have a vote now that the other engine could not decide anything", "'group consensus --dry-run' names those that have none; start those that stopped, and give the seats of those that lost their records to other nodes with 'seamark node replace'";
        /// Not to be changed from here.
        EngineFixed = 68, "engine_fixed", "the engine of a channel is its members' to change", "propose it in the channel, by its policy of membership";
        /// A lock that pays its own account.
        LockForm = 70, "lock_form", "the lock would pay the account that it holds the amount of", "name another payee";
        /// Bad deadline of a lock.
        LockDeadline = 71, "lock_deadline", "the deadline of the lock is not ahead of the block's time, or more than 366 days ahead", "use a deadline in milliseconds since 1970, later than now and within 366 days";
        /// No such lock.
        LockUnknown = 72, "lock_unknown", "the account has no lock with this id, or not yet", "check payer and lock id; wait until the transaction that locks is applied";
        /// Other terms.
        LockTerms = 73, "lock_terms", "the lock has another payee, asset or amount than the move says", "write the move with the terms that the lock has";
        /// Not the secret.
        WrongSecret = 74, "wrong_secret", "the secret's SHA-256 is not the hash of the lock", "use the 32 bytes that were hashed when the lock was agreed on";
        /// Claimed or refunded already.
        LockSettled = 75, "lock_settled", "the lock was claimed or refunded before", "none; it is settled once, and the lock tells how";
        /// A claim that comes too late.
        LockExpired = 76, "lock_expired", "the deadline of the lock has passed, so it can only be refunded", "none for the payee; the payer can take the amount back with a refund";
        /// A refund that comes too early.
        LockEarly = 77, "lock_early", "the deadline of the lock has not passed, so it cannot be refunded yet", "send it again when the block's time has reached the deadline";
        /// Bad record or grant.
        RecordForm = 78, "record_form", "the metadata of a record or the scope of a grant is outside the limits, or the grant is to the owner", "use at most 1024 bytes of metadata, 1-64 lower-case letters, digits or '-.:/_' of scope, and another grantee";
        /// Recorded before.
        RecordExists = 79, "record_exists", "the account has recorded this hash before", "none; the record tells when";
        /// No such record.
        RecordUnknown = 80, "record_unknown", "the account has no record of this hash", "check owner and hash; only the owner of a record can grant it";
        /// Nothing to revoke.
        GrantUnknown = 81, "grant_unknown", "the record is not granted to this party, so nothing can be revoked", "check the party with an account's address or an organisation's number";
        /// Too many records, grantees or changes.
        RecordFull = 82, "record_full", "the account has 65536 records, the record was granted to 1024 parties, or the party's access was changed 63 times", "use another account, or record the hash under another one";
        /// A grant without time.
        GrantExpired = 83, "grant_expired", "the grant would end before it begins", "use an end later than now";
        /// Not between an asset's home and another ledger.
        TransferLedger = 84, "transfer_ledger", "an asset moves between its home ledger and another one, and this transfer is within one ledger or between two others", "pay within a ledger; take an asset home before it goes on";
        /// Supply away from home.
        ForeignAsset = 85, "foreign_asset", "supply of an asset is made and destroyed in its home ledger alone", "mint or burn it there";
        /// More than came.
        PairExceeded = 86, "pair_exceeded", "the transfer would take more of the asset to its home ledger than came from there", "transfer less";
        /// A read without an answer.
        Unanswered = 87, "unanswered", "no replica of the group answered the read in time; it may have no leader, for want of a majority", "see 'seamark status' for the group; ask again, or ask for a stale answer";
        /// Nothing there of what nobody knows.
        NoSuchAsset = 88, "no_such_asset", "the account has nothing of this asset, and no asset with this id is known to this group", "check the asset's id";
        /// Standing still for a moment.
        Sealing = 99, "shard_sealing", "the shard is being cut or joined and takes nothing for a moment", "send it again with the same txid in a moment";
        /// Retired.
        Moved = 100, "shard_moved", "the shard was cut or joined; another one owns the account now", "refresh the layout and send it again with the same txid";
        /// No such job.
        JobUnknown = 101, "job_unknown", "there is no such job", "look at 'seamark shard status'";
        /// Too late for the job.
        JobOver = 102, "job_over", "the job is past the point where it can be cancelled or cut, or has ended", "look at 'seamark shard status'";
        /// Made on another layout.
        LayoutOld = 103, "layout_old", "the plan was made on another layout", "plan again";
        /// Something else is under way in the shard.
        ShardBusy = 104, "shard_busy", "a job, a change of seats or a switch of the engine is under way in this shard", "wait for it, or cancel it";
        /// No such shard.
        ShardUnknown = 105, "shard_unknown", "the layout has no such shard", "look at 'seamark shard ls'";
        /// Not the halves of one prefix.
        NotSiblings = 106, "not_siblings", "the two shards are not the halves of one prefix", "merge siblings only";
        /// Not to be cut once more.
        SplitDepth = 107, "split_depth", "the prefix cannot be cut once more, or the cluster has as many shards as it may have", "split another shard";
        /// Not a node that a seat can move to.
        MoveTarget = 108, "move_target", "the node is unknown, has no capacity, is accused, or has a seat there already", "name another node";
        /// Not a node that a seat can move from.
        MoveSource = 109, "move_source", "the node has no seat in the shard", "look at 'seamark shard ls'";
        /// Not to be joined as they stand.
        MergeApart = 110, "merge_apart", "the shards run under different engines, or nobody can align their seats", "switch the engine, or move seats first";
        /// A proof of a seal that does not hold.
        SealForm = 111, "seal_form", "the proof of a seal does not hold, or is about no job in this phase", "none; the shard sends it again";
        /// A report about a job that counts for nothing.
        ReportForm = 112, "report_form", "the report counts for nothing: of no member, not signed, old, or about no job", "none; the node reports again";
        /// Too few nodes answer.
        ShardRisk = 113, "shard_risk", "fewer nodes of the shard answer than it needs after one more failure", "mend the nodes first";
        /// Bad limits of automatic scaling.
        ScaleForm = 114, "scale_form", "the limits of automatic scaling contradict each other", "correct them";
        /// Too many jobs.
        JobsFull = 115, "jobs_full", "as many jobs as there may be are under way, or have this organisation's approval and wait for others", "wait for one, or cancel one";
        /// Mail of a retired group.
        MailRetired = 116, "mail_retired", "mail of a retired group, of which this group takes no more", "none; its children send what is left";
        /// No such node.
        NodeUnknown = 120, "node_unknown", "the registry has no node of this number", "see the nodes with 'seamark beacon show'";
        /// A node that is to be struck off has seats.
        NodeSeated = 121, "node_seated", "the node has a seat in a group, or is about to get one", "drain it, and wait until 'seamark beacon show' has no seats of it";
        /// A node that is to go is named by a channel.
        NodeInChannel = 122, "node_in_channel", "a channel names the node as one of its own, and only its member can name another one there", "name another node with 'seamark channel nodes', and wait until that one has the seat";
        /// The node is gone.
        NodeGone = 123, "node_gone", "a node of this number or with this key has left the cluster, and neither is given again", "register the node under another number, with another signing key";
        /// The node may take no seat.
        NodeDrained = 124, "node_drained", "the node takes no seats: it has no capacity, was shown to have voted twice, or has vanished", "give it capacity with 'seamark node capacity'; one that has voted twice is registered anew, with another key";
        /// Not one that could take the seats of the other.
        NodeSuccessor = 125, "node_successor", "the node that is to take the seats is the same one, or may take none", "name a node with capacity of the same organisation, which 'seamark node register' adds";
        /// Members of a group are silent.
        NodeSilence = 126, "members_silent", "a group that the node has a seat in has members that are not heard of: with this seat moving it would have no quorum, or none after one more failure", "start the nodes that do not answer, or replace them first; 'seamark status' names them";
        /// Bad policy.
        WatchForm = 127, "watch_form", "the policy for nodes that vanish is outside the limits", "use a time-out from 10 seconds to 30 days, and 1 to 64 nodes";
        /// A report that counts for nothing.
        SilenceForm = 128, "silence_form", "the report about silent nodes counts for nothing: nobody watches, it is not of a member of a group, not signed by it, or old", "none; the node reports again";
        /// Bad policy of epochs.
        EpochForm = 130, "epoch_form", "the policy of epochs is outside the limits", "use 0 to switch epochs off, else 4 seconds to 30 days; give a target of risk together with the number of bad nodes that it counts with";
        /// No epochs.
        EpochsOff = 131, "epochs_off", "the cluster has no epochs, so there is no next one", "switch them on with 'seamark beacon epoch set'";
        /// A contribution that counts for nothing.
        ContributionForm = 132, "contribution_form", "the contribution to a seed counts for nothing: there are no epochs, it is not of a member of the beacon, or not signed by it", "none; the node contributes to the next epoch";
        /// A contribution at the wrong time.
        ContributionPhase = 133, "contribution_phase", "the contribution is for another epoch or another phase of it: commitments are taken first, then secrets, until the cut-off", "none; the node contributes to the next epoch. If it repeats, compare the node's clock and load";
        /// Two commitments of one member.
        ContributionTwice = 134, "contribution_twice", "the member has committed itself to another secret in this epoch", "none; the first one counts. Two nodes that run with one key do this: stop one";
        /// A secret that is not the one of the commitment.
        ContributionMismatch = 135, "contribution_mismatch", "the secret is not the one that the member has committed itself to, or it has committed itself to none", "none; the node's file 'epoch.secret' was lost or altered, and the node counts as one that withholds";
        /// A member that sits an epoch out.
        ContributionBarred = 136, "contribution_barred", "the member withheld its secret in the epoch before, and sits this one out", "none; it takes part again in the next epoch";
        /// A dealt committee before its epoch.
        EpochEarly = 137, "epoch_early", "the committee is prepared by a deal of seats, which takes effect in the next epoch", "none; it comes into force by itself when the epoch has begun";
        /// Committees too small for the target.
        LayoutRisk = 138, "layout_risk", "with as many bad nodes as the target counts with, a committee would hold more of them than it tolerates with a probability above the target", "give the groups more replicas, add nodes, or choose another target; 'seamark beacon plan' prints the risk";
        /// What is brought before the audit proves nothing.
        AuditForm = 140, "audit_form", "what was brought before the audit proves nothing: headers that do not follow from each other, streams that the last one does not commit to, that are owed and left out or come too soon, or signatures that do not hold", "none; it is dropped, and a sound one is asked for again";
        /// A trail that does not continue what is audited.
        AuditGap = 141, "audit_gap", "the headers do not lead on from the last block of the group that is audited", "none; the beacon asks for those behind it";
        /// The group is in quarantine.
        GroupQuarantined = 142, "group_quarantined", "a group of the transaction is in quarantine: it has certified what excludes each other, and takes nothing new until that was looked into; what was sent before may have been executed", "see 'seamark audit status'; those whom 'seamark beacon policy' asks let it out with 'seamark audit release'";
        /// Nothing to release.
        NotQuarantined = 143, "not_quarantined", "there is no such quarantine to end: nothing is held against the group, or against the node's replica of it", "see what is held with 'seamark audit status'";
        /// A memo that several ledgers could read.
        MemoAcrossLedgers = 150, "memo_across_ledgers", "the transaction has moves in several ledgers and a memo in the clear, which all of them could read", "leave the memo out, or record what it says in a hidden move of the ledger that it is for";
        /// A witness that nobody is known to need.
        WitnessUnplaced = 151, "witness_unplaced", "of a transaction with moves in several ledgers each ledger is given its own signatures, and one of them fits none of its accounts by their addresses", "say which ledger needs it: the client library looks up accounts whose keys were rotated; leave out what no account needs";
        /// Another ledger said no, and does not say why.
        RefusedElsewhere = 152, "refused_elsewhere", "a group of another ledger refused its side of the transaction; why, it tells in its own ledger alone; nothing changed anywhere", "ask somebody who takes part in the other ledger: 'seamark tx explain' tells them";
        /// An organisation's share of channels is used up.
        ChannelShare = 160, "channel_share", "the organisation has proposed as many channels as it may have at a time, those that wait for approval included", "close one of them with 'seamark channel close', or withdraw a founding";
        /// No more channels at a time.
        ChannelsFull = 161, "channels_full", "the cluster has as many channels as it may have at a time", "wait until a channel is closed, and approve again";
        /// No more channels ever.
        ChannelsSpent = 162, "channels_spent", "the cluster has founded as many channels as it may in its life", "use one of the channels that are there";
        /// A key that a node has or had.
        NodeKeyUsed = 170, "node_key_used", "the key is that of a node or an organisation, or was one before; no key is taken twice", "draw a new one: 'seamark node rotate-key' does, once 'signing.key.next' is removed from the node's folder";
        /// A new key that nobody was shown to have.
        NodeKeyProof = 171, "node_key_proof", "the new key has not signed that it follows the node's present one in this cluster, or is no key", "give the command where the node's folder with 'signing.key.next' is: 'seamark node rotate-key' signs with that key";
        /// A key is being replaced already.
        NodeKeyPending = 172, "node_key_pending", "the node's key was replaced less than an hour ago, and a group still names the one before", "wait until 'seamark node rotate-key' says that it is done; the node has to run, with 'signing.key.next' in its folder. Where a group has no quorum, give the command with --anew when the hour is over";
        /// A group of the node is being changed.
        NodeKeyBusy = 173, "node_key_busy", "the committee of a group that the node has a seat in is being changed, or a job is under way there", "wait until that has ended: 'seamark status' and 'seamark shard ls' show it";
        /// Something is held against the node.
        NodeKeyHeld = 174, "node_key_held", "the node has voted twice, or is in quarantine for a replica that diverges: it gets no new key", "register another node in its place; out of quarantine it comes with 'seamark audit release'";
        /// A group waits for a node to sign with its next key.
        NodeKeyAwaited = 187, "node_key_awaited", "a node of the group has another key, and has not signed with it yet: nothing else about the group's committee changes before", "start that node with 'signing.key.next' in its folder, or drain it with 'seamark node drain'; 'seamark node rotate-key' shows which groups wait for it";
        /// A member that is alone in its channel wants to go.
        OrgAlone = 163, "org_alone_in_channel", "the organisation is the only member of a channel that is not closed", "take home what is in the channel, and close it with 'seamark channel close' and 'seamark channel finish-close'; the others can remove the organisation without that, and what is in the channel is lost then";
        /// A policy that could not hold.
        PolicyUnsatisfiable = 175, "org_policy_unsatisfiable", "the policy names an organisation that the cluster does not have, asks for more than it lists, or could not hold if the admins of all organisations approved", "name organisations of 'seamark beacon policy' as admins, and ask for no more than there are";
        /// An approval that counts for nothing.
        PolicyNotAsked = 176, "org_policy_not_asked", "the policy in force for this does not ask the organisation that signs", "none; 'seamark beacon policy' shows whom it asks";
        /// The policy has changed meanwhile.
        PolicyStale = 177, "org_policy_stale", "the policy that is to be replaced has changed since this was proposed", "look at the one in force with 'seamark beacon policy', and propose anew";
        /// Organisations that could not satisfy a policy.
        PolicyBlocks = 178, "org_policy_blocks", "the organisations that there would be then could not satisfy a policy of the cluster", "change that policy first: 'seamark beacon policy' shows them all";
        /// An organisation's share of a router is used up.
        OrgBusy = 195, "org_busy", "the organisation's clients have as much in flight over this router as is left for all others", "retry after the hinted delay with the same txid, or send over several routers";
        /// Who sent it takes no part in the channel any more.
        ChannelUntold = 192, "channel_untold", "the channel does not admit whoever sent the transaction any more, and tells it nothing of what became of that; it may have been executed", "ask somebody who takes part in the channel: 'seamark tx' tells them";
    }
}

impl Reject {
    /// Whether executing a transaction with this result leaves a receipt. Only reasons that come
    /// after every debited account has authorised do, so nobody can burn another's txid; and only
    /// those that asking again would not change.
    #[must_use]
    pub fn leaves_receipt(self) -> bool {
        matches!(
            self,
            Self::InsufficientFunds
                | Self::NoSuchAsset
                | Self::Overflow
                | Self::NotIssuer
                | Self::Frozen
                | Self::AssetExists
                | Self::Conflict
                | Self::CheckFailed
                | Self::LimitExceeded
                | Self::LockSettled
                | Self::LockExpired
                | Self::RecordExists
                | Self::RecordFull
                | Self::GrantExpired
                | Self::TransferLedger
                | Self::ForeignAsset
                | Self::PairExceeded
        )
    }

    /// Whether the transaction was not shown to be that of the accounts it is about: by a signature,
    /// or, of a claim of a hash-lock, by the secret. A group then neither votes
    /// nor leaves a trace, unless mail has brought the transaction, or a hand-over opens what mail brought.
    #[must_use]
    pub fn precedes_authorisation(self) -> bool {
        matches!(self, Self::NotAuthorised | Self::LockUnknown | Self::LockTerms | Self::WrongSecret)
    }

    /// Whether sending the same transaction again may succeed.
    #[must_use]
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::OrgBusy
                | Self::PeerBusy
                | Self::NotLeader
                | Self::WrongShard
                | Self::TooLate
                | Self::Unanswered
                | Self::Behind
                | Self::GroupStopped
                | Self::Sealing
                | Self::Moved
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_unique() {
        let mut codes: Vec<_> = Reject::ALL.iter().map(|reject| reject.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reject::ALL.len());
        for reject in Reject::ALL {
            assert_eq!(Reject::from_number(reject.number()), Some(*reject));
        }
    }
}
