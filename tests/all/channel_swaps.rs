//! Trades that settle across ledgers: between channels of different organisations, and between a channel and
//! the main ledger. All of it happens or nothing does, and no node keeps a byte of a side that is not its own.

use std::sync::Arc;

use channel::{Change, Command, Outcome, Phase};
use client::{Client, Consistency, Settled, Wait};
use ledger::hash::sha256;
use ledger::{
    Address, Authorisation, Committee, GroupId, LedgerId, Move, NodeId, Opening, OrgId, Reject, SignedTx, Slot, TxBody,
    schema,
};
use storage::KeyRange;

use crate::support::bank::{Bank, Wallet, body, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;

const A: OrgId = OrgId(1);
const B: OrgId = OrgId(2);
const C: OrgId = OrgId(3);
/// A's node in steel, B's in steel, B's in coal and C's in coal.
const OF_A: NodeId = NodeId(1);
const BETWEEN: NodeId = NodeId(2);
const OF_B: NodeId = NodeId(5);
const OF_C: NodeId = NodeId(3);

/// Two channels that share one organisation and no node, with money in both and at home.
struct Market {
    cluster: TestCluster,
    bank: Bank,
    /// Of A and B.
    steel: GroupId,
    /// Of B and C.
    coal: GroupId,
    /// Has 600 in steel and 400 on the main ledger.
    alice: Wallet,
    /// Has 600 in coal and 400 on the main ledger.
    carol: Wallet,
    /// Is paid by alice.
    bob: Wallet,
    /// Is paid by carol.
    dave: Wallet,
    /// The admin of B, over one router.
    between: Client,
}

impl Market {
    async fn open() -> Self {
        let cluster = TestCluster::start(Wanted { nodes: 5, shards: 1, ..Wanted::default() }).await;
        let bank = Bank::open(&cluster.client()).await;
        let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(|name| wallet(name, 0));
        let consortium = Consortium::of(&cluster);
        let steel = consortium.found("steel", &[(A, &[OF_A]), (B, &[BETWEEN])]).await;
        let coal = consortium.found("coal", &[(B, &[OF_B]), (C, &[OF_C])]).await;
        consortium.permit(steel, bank.asset, &[A, B]).await;
        consortium.permit(coal, bank.asset, &[B, C]).await;
        bank.fund([&alice, &carol], 1_000).await;
        let between = consortium.client_over(B, |node| node == BETWEEN);
        let market = Self { cluster, bank, steel, coal, alice, carol, bob, dave, between };
        market.knows(steel, [OF_A, BETWEEN], coal).await;
        market.knows(coal, [OF_B, OF_C], steel).await;
        for (wallet, group) in [(&market.alice, steel), (&market.carol, coal)] {
            let (address, ledger) = (wallet.address, LedgerId::of_channel(group));
            let bring = Move::Transfer { from: address, to: address, asset: market.bank.asset, amount: 600, ledger };
            market.bank.execute(vec![bring], &[&wallet.key]).await.unwrap();
            market.has(group, address, 600).await;
        }
        market
    }

    /// Waits until the replicas of a channel have heard of another one: before, they refuse what it votes on.
    async fn knows(&self, group: GroupId, nodes: [NodeId; 2], other: GroupId) {
        for node in nodes {
            eventually("the channels know each other", async || {
                let running = self.cluster.node(node).hosted().group(group.0);
                let running = running.ok_or_else(|| format!("{group} does not run on node {node}"))?;
                let committee = running.share.state.load::<Committee>(&schema::current_committee(other));
                let known = committee.map_err(|error| error.to_string())?;
                known.map(drop).ok_or_else(|| format!("{group} does not know {other} on node {node}"))
            })
            .await;
        }
    }

    /// What an account has in a channel: posted, and of that held.
    async fn funds(&self, group: GroupId, address: Address) -> (u128, u128) {
        let ledger = LedgerId::of_channel(group);
        let answer = self.between.account_of(ledger, address, Consistency::Linearizable, false).await.unwrap();
        let balances = answer.value.map(|record| record.balances).unwrap_or_default();
        let line = balances.iter().find(|line| line.0 == self.bank.asset);
        line.map_or((0, 0), |(_, balance)| (balance.posted, balance.held))
    }

    /// Waits until an account has this much in a channel, with nothing held of it.
    async fn has(&self, group: GroupId, address: Address, amount: u128) {
        eventually("what is settled is posted", async || match self.funds(group, address).await {
            (posted, 0) if posted == amount => Ok(()),
            other => Err(format!("{other:?}, not {amount}")),
        })
        .await;
    }

    /// Nothing has moved or is held, wherever alice and carol have something.
    async fn is_untouched(&self, [steel, coal]: [u128; 2], home: [u128; 2]) {
        self.has(self.steel, self.alice.address, steel).await;
        self.has(self.coal, self.carol.address, coal).await;
        assert_eq!(self.bank.balances(&[self.alice.address, self.carol.address]).await, home);
    }

    /// Alice pays bob in steel, and carol pays dave in another channel; each side is hidden from the other.
    fn swap(&self, number: u8, other: GroupId, amounts: [u128; 2]) -> (SignedTx, [Opening; 2]) {
        let (bob, dave) = (self.bob.address, self.dave.address);
        let (first, opening) = hidden(number, 0, self.steel, self.bank.pay(&self.alice, bob, amounts[0]));
        let (second, other_opening) = hidden(number, 1, other, self.bank.pay(&self.carol, dave, amounts[1]));
        (self.sign(number, vec![first, second]), [opening, other_opening])
    }

    fn sign(&self, number: u8, slots: Vec<Slot>) -> SignedTx {
        let mut body = body(self.cluster.genesis.cluster_id(), number.into(), []);
        body.slots = slots;
        SignedTx::sign(&body, &[&self.alice.key, &self.carol.key])
    }

    /// What becomes of it when B hands over both sides.
    async fn settle(&self, (tx, openings): (SignedTx, [Opening; 2])) -> Settled {
        self.between.submit_tx(tx.encode(), openings.to_vec(), Wait::Applied).await.unwrap()
    }

    /// Whether anything that a node keeps of any group has these bytes.
    fn keeps(&self, node: NodeId, secret: &[u8]) -> bool {
        let groups: Vec<_> = self.cluster.node(node).hosted().groups.read().values().map(Arc::clone).collect();
        groups.iter().any(|group| {
            let db = group.share.state.db().unwrap();
            let all = db.scan(KeyRange::all(), usize::MAX).unwrap();
            let has = |part: &[u8]| part.windows(secret.len()).any(|window| window == secret);
            all.iter().any(|(key, value)| has(key) || has(value))
        })
    }

    /// Whether what a node keeps of one group has these bytes.
    fn holds(&self, node: NodeId, group: GroupId, secret: &[u8]) -> bool {
        let running = self.cluster.node(node).hosted().group(group.0).expect("the group runs there");
        let all = running.share.state.db().unwrap().scan(KeyRange::all(), usize::MAX).unwrap();
        let has = |part: &[u8]| part.windows(secret.len()).any(|window| window == secret);
        all.iter().any(|(key, value)| has(key) || has(value))
    }

    /// What opens a slot is kept by the channel's nodes that were named, and by none of the others.
    async fn is_kept_by(&self, opening: &Opening, inside: &[NodeId]) {
        let mv = borsh::to_vec(&opening.mv).unwrap();
        for node in self.cluster.node_ids() {
            for secret in [&opening.salt.0[..], &mv] {
                match inside.contains(&node) {
                    true => {
                        eventually("the block is there", async || {
                            if self.keeps(node, secret) { Ok(()) } else { Err(format!("node {node} lacks it")) }
                        })
                        .await;
                    }
                    false => assert!(!self.keeps(node, secret), "node {node} has a move that is hidden from it"),
                }
            }
        }
    }
}

/// A move in a slot that shows its group alone, and what opens it.
pub fn hidden(number: u8, slot: u16, group: GroupId, mv: Move) -> (Slot, Opening) {
    let salt = sha256(&[&[number][..], &slot.to_be_bytes()].concat());
    let opening = Opening { slot, salt, mv };
    (Slot::Hidden { ledger: LedgerId::of_channel(group), group, hash: opening.hash() }, opening)
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_and_the_main_ledger_settle_one_against_the_other_or_not_at_all() {
    let market = Market::open().await;
    let (bank, steel, coal) = (&market.bank, market.steel, market.coal);

    // Two channels of different organisations, over one router of the organisation that is in both.
    let (tx, openings) = market.swap(1, coal, [30, 70]);
    let txid = tx.txid(&market.cluster.genesis.cluster_id());
    let settled = market.settle((tx, openings.clone())).await;
    let Settled::Votes { votes, .. } = &settled else { panic!("{settled:?}") };
    assert_eq!(votes.iter().map(|vote| (vote.group, vote.no)).collect::<Vec<_>>(), [(steel, None), (coal, None)]);
    market.is_untouched([570, 530], [400, 400]).await;
    // What became of it, each organisation is told by the channels that it is in, and by them alone.
    let consortium = Consortium::of(&market.cluster);
    for (org, told) in [(A, vec![steel]), (B, vec![steel, coal]), (C, vec![coal])] {
        let known = consortium.client(org).explain(txid).await.unwrap();
        assert!(known.iter().all(|known| known.unanswered.is_none()), "{known:?}");
        assert_eq!(known.iter().map(|known| known.group).collect::<Vec<_>>(), told);
    }
    market.has(steel, market.bob.address, 30).await;
    market.has(coal, market.dave.address, 70).await;
    market.is_kept_by(&openings[0], &[OF_A, BETWEEN]).await;
    market.is_kept_by(&openings[1], &[OF_B, OF_C]).await;
    // Neither knows who pays, or is paid, in the other: by no address and by no key.
    for (group, nodes, known, unknown) in [
        (steel, [OF_A, BETWEEN], &market.alice, [&market.carol, &market.dave]),
        (coal, [OF_B, OF_C], &market.carol, [&market.alice, &market.bob]),
    ] {
        for node in nodes {
            assert!(market.holds(node, group, &known.key.public().0), "{group} on node {node} has its own payer's key");
            for wallet in unknown {
                for secret in [&wallet.address.0[..], &wallet.key.public().0] {
                    assert!(!market.holds(node, group, secret), "{group} on node {node} knows of the other side");
                }
            }
        }
    }

    // Delivery in a channel, hidden, against payment on the main ledger, which everybody sees.
    let delivery = |number, amount| hidden(number, 0, steel, bank.pay(&market.alice, market.bob.address, amount));
    let payment = || Slot::Clear { ledger: LedgerId::MAIN, mv: bank.pay(&market.carol, market.alice.address, 40) };
    let (slot, opening) = delivery(2, 10);
    let tx = market.sign(2, vec![slot, payment()]);
    let settled = market.between.submit_tx(tx.encode(), vec![opening.clone()], Wait::Applied).await.unwrap();
    assert!(settled.committed(), "{settled:?}");
    market.is_untouched([560, 530], [440, 360]).await;
    market.has(steel, market.bob.address, 40).await;
    market.is_kept_by(&opening, &[OF_A, BETWEEN]).await;
    // Without the delivery there is no payment.
    let (slot, opening) = delivery(3, 561);
    let tx = market.sign(3, vec![slot, payment()]);
    let txid = tx.txid(&market.cluster.genesis.cluster_id());
    let settled = market.between.submit_tx(tx.encode(), vec![opening], Wait::Applied).await.unwrap();
    assert_eq!(settled.no(), Some((steel, Reject::InsufficientFunds)), "who handed it to steel is told why");
    market.is_untouched([560, 530], [440, 360]).await;
    // Others are told on the main ledger that steel said no, and not why.
    eventually("the main ledger has its receipt", async || {
        let known = Consortium::of(&market.cluster).client(C).explain(txid).await.map_err(|error| error.to_string())?;
        let receipt = known.into_iter().filter(|known| known.group != steel).find_map(|known| known.receipt);
        let receipt = receipt.ok_or_else(|| "no receipt yet".to_owned())?;
        assert_eq!(receipt.outcome, ledger::Outcome::Aborted { group: steel, reason: Reject::RefusedElsewhere });
        Ok::<_, String>(())
    })
    .await;

    // Who takes no part in one of the channels hands over neither side.
    let consortium = Consortium::of(&market.cluster);
    for (number, org) in [(4, A), (5, C)] {
        let (tx, openings) = market.swap(number, coal, [1, 1]);
        let error = consortium.client(org).submit_tx(tx.encode(), openings.to_vec(), Wait::Receipt).await.unwrap_err();
        assert_eq!(error.code(), "access_denied", "organisation {org}");
    }
    let (tx, openings) = market.swap(6, GroupId::channel(99), [1, 1]);
    let error = market.between.submit_tx(tx.encode(), openings.to_vec(), Wait::Receipt).await.unwrap_err();
    assert_eq!(error.code(), "unknown_group");

    // The other side is frozen: this one gets back what it had promised, and once it is thawed all goes on.
    consortium.decide(coal, Change::Freeze, &[B, C]).await;
    let settled = market.settle(market.swap(7, coal, [1, 1])).await;
    assert_eq!(settled.no(), Some((coal, Reject::ChannelFrozen)));
    market.is_untouched([560, 530], [440, 360]).await;
    consortium.decide(coal, Change::Thaw, &[B, C]).await;
    assert!(market.settle(market.swap(8, coal, [1, 1])).await.committed());
    market.is_untouched([559, 529], [440, 360]).await;

    // The other side is closed for good. It still says no, so that nobody waits for it.
    let grain = consortium.found("grain", &[(B, &[BETWEEN]), (C, &[OF_C])]).await;
    consortium.decide(grain, Change::Close, &[B, C]).await;
    eventually("the channel is closed", async || match consortium.act(grain, B, &Command::FinishClose).await {
        Ok(Outcome::Phase(Phase::Closed)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        Err(error) if error.to_string().contains("channel_close_mail") => Err(error.to_string()),
        Err(error) => panic!("{error}"),
    })
    .await;
    market.knows(steel, [OF_A, BETWEEN], grain).await;
    market.knows(grain, [BETWEEN, OF_C], steel).await;
    let settled = market.settle(market.swap(9, grain, [1, 1])).await;
    assert_eq!(settled.no(), Some((grain, Reject::ChannelClosed)));
    market.is_untouched([559, 529], [440, 360]).await;

    // Alice signs with another key in steel by now, which her address does not tell: the client asks steel.
    let (renewed, account) = (wallet("alice", 1).key, market.alice.address);
    let rotate = Move::Rotate { account, auth: Authorisation::Single(renewed.public()) };
    let rotate = vec![(LedgerId::of_channel(steel), rotate)];
    market.between.execute(rotate, b"", &[&market.alice.key], Wait::Receipt).await.unwrap();
    let (tx, openings) = market.swap(10, coal, [1, 1]);
    let tx = SignedTx::sign(&TxBody::decode(&tx.body).unwrap(), &[&renewed, &market.carol.key]);
    assert!(market.settle((tx, openings)).await.committed());
    market.is_untouched([558, 528], [440, 360]).await;
}
