//! What one group of a swap between ledgers is given of the other side: that it takes part, and whether it agrees. All
//! bytes are searched that a group gets or writes on the way: hand-over, mail, state, blocks and receipts.

use bytes::Bytes;
use channel::Change;
use cross_shard::Message;
use cross_shard::commit::{self, Decision};
use ledger::ids::{AssetId, GroupId, LedgerId, TxId};
use ledger::tx::Opening;
use ledger::{Move, Outcome, ParsedTx, Reject, SecretKey, SignedTx, Slot, Submission};

use crate::core::consortium::{Consortium, SHARDS, State, address, borsh_of, clear, client, hidden, part};
use crate::core::entry::Command;
use crate::core::machine::CommandOutcome;

/// Payer and payee of each side; nobody is on both.
const PARTIES: [[u8; 2]; 2] = [[11, 12], [21, 22]];
/// Numbers that stand nowhere else.
const AMOUNTS: [u128; 2] = [0x0a1b_2c3d_4e5f_6071, 0x7766_5544_3322_110f];
const FUNDS: u128 = 1 << 66;

/// A swap, and what was there before it.
struct Trade {
    tx: SignedTx,
    txid: TxId,
    groups: [GroupId; 2],
    moves: [Move; 2],
    openings: [Option<Opening>; 2],
    /// What was handed over to each side.
    handed: [Vec<Vec<u8>>; 2],
    before: [State; 2],
    mailed: [usize; 2],
}

struct Scene {
    world: Consortium,
    channels: [GroupId; 2],
    assets: [AssetId; 2],
}

impl Scene {
    /// Two channels; each side's payer has money in its own, and the second's on the main ledger, too.
    fn set() -> Self {
        let (mut world, first, second) = Consortium::with_two_channels();
        let assets = [world.issue("EUR"), world.issue("USD")];
        let channels = [first, second];
        for (side, admins) in [[1, 2], [2, 3]].into_iter().enumerate() {
            world.bring(&client(PARTIES[side][0]), assets[side], FUNDS, channels[side]);
            world.enact(channels[side], admins, Change::PermitAsset { asset: assets[side] });
        }
        world.mint(&client(PARTIES[1][0]), assets[1], FUNDS);
        world.settle();
        Self { world, channels, assets }
    }

    /// Each side's payer pays its payee. `main`: the second on the main ledger, in the clear there.
    fn trade(&mut self, assets: [AssetId; 2], amounts: [u128; 2], main: bool, signers: &[&SecretKey]) -> Trade {
        let pay = |side: usize| {
            let [from, to] = PARTIES[side].map(|number| address(&client(number)));
            Move::Pay { from, to, asset: assets[side], amount: amounts[side] }
        };
        let moves = [pay(0), pay(1)];
        let (slot, opening) = hidden(0, self.channels[0], moves[0].clone());
        let (other, other_opening): (Slot, Option<Opening>) = if main {
            (clear(LedgerId::MAIN, moves[1].clone()), None)
        } else {
            let (slot, opening) = hidden(1, self.channels[1], moves[1].clone());
            (slot, Some(opening))
        };
        let tx = self.world.sign(vec![slot, other], signers);
        let second = if main { self.world.home(&client(PARTIES[1][0])) } else { self.channels[1] };
        let groups = [self.channels[0], second];
        Trade {
            txid: tx.txid(&self.world.cluster),
            tx,
            groups,
            moves,
            openings: [Some(opening), other_opening],
            handed: [Vec::new(), Vec::new()],
            before: groups.map(|group| self.world.chain(group).state.clone()),
            mailed: groups.map(|group| self.world.chain(group).mailed.len()),
        }
    }
}

impl Trade {
    fn hand_over(&mut self, world: &mut Consortium, side: usize) {
        let openings: Vec<Opening> = self.openings[side].iter().cloned().collect();
        let bytes = part(&world.cluster, self.groups[side], &self.tx, &openings);
        self.handed[side].push(bytes.clone());
        world.one(self.groups[side], Command::Tx(bytes));
    }

    /// All that a side has been given, and written since.
    fn shown_to(&self, world: &Consortium, side: usize) -> Vec<Bytes> {
        let (own, other) = (world.chain(self.groups[side]), world.chain(self.groups[1 - side]));
        let news = own.state.iter().filter(|(key, value)| self.before[side].get(*key) != Some(*value));
        let mut shown: Vec<Bytes> =
            news.flat_map(|(key, value)| [Bytes::copy_from_slice(key), value.clone()]).collect();
        let mail = other.mailed[self.mailed[1 - side]..].iter();
        shown.extend(mail.filter(|(dest, _)| *dest == self.groups[side]).map(|(_, message)| message.clone()));
        shown.extend(self.handed[side].iter().cloned().map(Bytes::from));
        shown
    }

    /// What is only a side's own.
    fn secrets_of(&self, side: usize) -> Vec<(&'static str, Vec<u8>)> {
        let Move::Pay { asset, amount, .. } = &self.moves[side] else { unreachable!("both pay") };
        let [payer, payee] = PARTIES[side].map(client);
        let mut secrets = vec![
            ("the payer's address", address(&payer).0.to_vec()),
            ("the payee's address", address(&payee).0.to_vec()),
            ("the payer's key", payer.public().0.to_vec()),
            ("the payer's signature", payer.sign(&self.txid.0).0.to_vec()),
            ("the amount", amount.to_le_bytes().to_vec()),
            ("the asset", asset.0.to_vec()),
            ("the move", borsh_of(&self.moves[side])),
        ];
        secrets.extend(self.openings[side].iter().map(|opening| ("the salt of the slot", opening.salt.0.to_vec())));
        secrets
    }

    fn finds(shown: &[Bytes], secret: &[u8]) -> bool {
        shown.iter().any(|bytes| bytes.windows(secret.len()).any(|window| window == secret))
    }

    /// Nothing of a side is with the other one, and the search finds what is with its own.
    fn is_veiled(&self, world: &Consortium, name: &str, side: usize) {
        let (own, other) = (self.shown_to(world, side), self.shown_to(world, 1 - side));
        for (what, secret) in self.secrets_of(side) {
            assert!(!Self::finds(&other, &secret), "{name}: {} is given {what} of the other", self.groups[1 - side]);
            // A party that has not signed, or a side that was not handed over, is not there.
            if what == "the salt of the slot" && !self.handed[side].is_empty() {
                assert!(Self::finds(&own, &secret), "{name}: {} has {what}", self.groups[side]);
            }
        }
    }

    /// The other side hears of a NO, and not why: not by mail, not in its record, not in its receipt.
    fn is_refused_without_a_reason(&self, world: &Consortium, name: &str, by: usize, reason: Reject) {
        let [no, other] = [by, 1 - by].map(|side| self.groups[side]);
        assert_eq!(world.chain(no).outcome(&self.tx), Some(Outcome::Rejected(reason)), "{name}: its own are told");
        let veiled = Reject::RefusedElsewhere;
        let told = Outcome::Aborted { group: no, reason: veiled };
        assert_eq!(world.chain(other).outcome(&self.tx), Some(told), "{name}");
        let record = world.chain(other).read(|view| commit::prepared(view, &self.txid)).expect("it took part");
        assert_eq!(record.received.iter().map(|vote| vote.decision).collect::<Vec<_>>(), [Decision::No(veiled)]);
        let mail = world.chain(no).mailed[self.mailed[by]..].iter().filter(|(dest, _)| *dest == other);
        let votes = mail.filter_map(|(_, message)| match borsh::from_slice(message) {
            Ok(Message::Vote(vote)) => Some(vote),
            _ => None,
        });
        for vote in votes {
            assert_eq!(vote.decision, Decision::No(veiled), "{name}");
            let carried = ParsedTx::decode(&world.cluster, &vote.tx).expect("the body that was signed");
            assert_eq!((carried.witnesses.len(), carried.txid), (0, self.txid), "{name}");
        }
    }
}

/// What the first side is up to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Case {
    Agrees,
    LacksFunds,
    LacksPermission,
    LacksSignature,
    Frozen,
    NeverOpened,
}

impl Case {
    const ALL: [(Self, Option<Reject>); 6] = [
        (Self::Agrees, None),
        (Self::LacksFunds, Some(Reject::InsufficientFunds)),
        (Self::LacksPermission, Some(Reject::AssetNotPermitted)),
        (Self::LacksSignature, Some(Reject::NotAuthorised)),
        (Self::Frozen, Some(Reject::ChannelFrozen)),
        (Self::NeverOpened, Some(Reject::Expired)),
    ];
}

#[test]
fn a_group_is_given_nothing_of_the_other_side_whatever_becomes_of_the_swap() {
    let mut scene = Scene::set();
    let foreign = scene.world.issue("GBP");
    scene.world.bring(&client(PARTIES[0][0]), foreign, FUNDS, scene.channels[0]);
    let (first, [eur, usd]) = (scene.channels[0], scene.assets);
    let payers = [client(PARTIES[0][0]), client(PARTIES[1][0])];
    for (case, reason) in Case::ALL {
        for main in [false, true] {
            let name = format!("{case:?}, on the main ledger: {main}");
            if case == Case::Frozen {
                scene.world.enact(first, [1, 2], Change::Freeze);
            }
            let amount = if case == Case::LacksFunds { AMOUNTS[0] + 2 * FUNDS } else { AMOUNTS[0] };
            let asset = if case == Case::LacksPermission { foreign } else { eur };
            let signers: Vec<&SecretKey> = payers.iter().skip(usize::from(case == Case::LacksSignature)).collect();
            let mut trade = scene.trade([asset, usd], [amount, AMOUNTS[1]], main, &signers);
            let world = &mut scene.world;
            trade.hand_over(world, 1);
            world.settle();
            if case == Case::NeverOpened {
                world.now += 61_000;
                world.block(first, Vec::new());
            } else {
                trade.hand_over(world, 0);
            }
            world.settle();
            match reason {
                Some(reason) => trade.is_refused_without_a_reason(world, &name, 0, reason),
                None => {
                    let committed =
                        |group| matches!(world.chain(group).outcome(&trade.tx), Some(Outcome::Committed { .. }));
                    assert!(trade.groups.into_iter().all(committed), "{name}");
                }
            }
            trade.is_veiled(world, &name, 0);
            // What is on the main ledger in the clear, everybody may read; who has signed there, not by the vote.
            if !main {
                trade.is_veiled(world, &name, 1);
            }
            let key = payers[1].public().0;
            assert!(!Trade::finds(&trade.shown_to(world, 0), &key), "{name}: the other side's key");
            if case == Case::Frozen {
                scene.world.enact(first, [1, 2], Change::Thaw);
            }
        }
    }
}

/// A shard votes by mail that comes from its own ledger. What a channel mails to it lacks the witnesses: it waits for
/// a hand-over, or for a shard to bring them.
#[test]
fn shards_share_what_a_channel_is_not_given() {
    let Scene { mut world, channels, assets } = Scene::set();
    // One payer in each shard, who pay each other, against a payment in the channel.
    let homes: Vec<(SecretKey, GroupId)> =
        (30..60u8).map(|number| (client(number), world.home(&client(number)))).collect();
    let of = |shard: usize| {
        let group = SHARDS[shard];
        homes.iter().find(|(_, home)| *home == group).map(|(key, _)| key.clone()).expect("one of thirty")
    };
    let (one, other, inside) = (of(0), of(1), client(PARTIES[0][0]));
    let usd = assets[1];
    world.mint(&one, usd, 100);
    world.mint(&other, usd, 100);
    let on_main = |from: &SecretKey, to: &SecretKey, amount| {
        clear(LedgerId::MAIN, Move::Pay { from: address(from), to: address(to), asset: usd, amount })
    };
    let pay = |amount| Move::Pay { from: address(&inside), to: address(&one), asset: assets[0], amount };
    let groups = [channels[0], world.home(&one), world.home(&other)];
    for (amount, handed) in [(5, [0, 1]), (6, [1, 0])] {
        let (slot, opening) = hidden(0, groups[0], pay(amount));
        let slots = vec![slot, on_main(&one, &other, amount), on_main(&other, &one, amount + 1)];
        let tx = world.sign(slots, &[&one, &other, &inside]);
        let opened = groups.into_iter().zip([vec![opening], Vec::new(), Vec::new()]);
        let parts: Vec<Vec<u8>> = opened.map(|(group, openings)| part(&world.cluster, group, &tx, &openings)).collect();
        // The channel and one shard are handed theirs; the other shard hears of it by mail from both.
        for side in handed {
            world.one(groups[side], Command::Tx(parts[side].clone()));
            world.settle();
        }
        for group in groups {
            let outcome = world.chain(group).outcome(&tx);
            assert!(matches!(outcome, Some(Outcome::Committed { .. })), "{group} {amount}: {outcome:?}");
        }
        // Alone, the channel's word makes a shard wait.
        let (slot, opening) = hidden(0, groups[0], pay(amount + 10));
        let tx = world.sign(vec![slot, on_main(&one, &other, amount + 10)], &[&one, &inside]);
        let bytes = part(&world.cluster, groups[0], &tx, std::slice::from_ref(&opening));
        world.one(groups[0], Command::Tx(bytes));
        world.settle();
        let txid = tx.txid(&world.cluster);
        let record = world.chain(groups[1]).read(|view| commit::prepared(view, &txid)).expect("it has heard of it");
        assert_eq!((record.casts.len(), record.received.len()), (0, 1));
        // Whoever hands it over without a witness changes nothing; with it, it is done.
        let bare = Submission::encode(SignedTx { witnesses: Vec::new(), ..tx.clone() }.encode(), Vec::new());
        let refused = world.one(groups[1], Command::Tx(bare));
        assert_eq!(refused, CommandOutcome::Refused(txid, Reject::NotAuthorised));
        let bytes = part(&world.cluster, groups[1], &tx, &[]);
        world.one(groups[1], Command::Tx(bytes));
        world.settle();
        assert!(matches!(world.chain(groups[0]).outcome(&tx), Some(Outcome::Committed { .. })));
    }
}
