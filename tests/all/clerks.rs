//! A channel whose policies ask others than admins: clerks, who hold keys of the role member and certificates of clients,
//! and nodes. What they approve comes in at the same door as what admins sign, and nothing else of theirs does.

use channel::{Change, Command, Outcome, Policy, ProposalState, Quorum, Role, SignedCommand, Subject as Matter};
use client::{Client, ClientError, Identity};
use ledger::{Hash32, NodeId, OrgId, SecretKey, TimeMs};
use seamark_cli::setup::Subject;
use seamark_cli::setup::files::read_signing_key;

use crate::isolation::{A, B, INSIDE, OUTSIDE, Scene};
use crate::support::bank::now_ms;
use crate::support::consortium::Consortium;

/// How long what is signed may wait for its turn.
const WITHIN_MS: u64 = 60_000;

/// Whoever signs with a key of their own, and comes with a certificate of their own to one router.
struct Hand<'a> {
    scene: &'a Scene,
    org: OrgId,
    key: SecretKey,
    client: Client,
}

impl<'a> Hand<'a> {
    fn of(scene: &'a Scene, org: OrgId, key: SecretKey, identity: &Identity, router: NodeId) -> Self {
        let mut profile = scene.cluster.profile();
        profile.routers.retain(|known| known.node == Some(router));
        let folder = scene.cluster.dir.root().join(format!("hand-of-{org}-at-{router}-{}", key.public()));
        std::fs::create_dir_all(&folder).unwrap();
        (profile.cert, profile.key) = (folder.join("hand.pem"), folder.join("hand.key"));
        std::fs::write(&profile.cert, &identity.cert_pem).unwrap();
        std::fs::write(&profile.key, identity.key_pem.as_bytes()).unwrap();
        Self { scene, org, key, client: Client::lazy(&profile).unwrap() }
    }

    fn clerk(scene: &'a Scene, name: &str, org: OrgId, router: NodeId) -> Self {
        let key = SecretKey::derive(format!("clerk of {name}").as_bytes(), b"");
        Self::of(scene, org, key, &scene.issue(name, Subject::client), router)
    }

    fn node(scene: &'a Scene, org: OrgId, node: NodeId) -> Self {
        let key = read_signing_key(&scene.cluster.dir.node_dir(node).join("signing.key")).unwrap();
        Self::of(scene, org, key, &scene.cluster.node_identity(node), node)
    }

    fn signs(&self, command: &Command) -> Vec<u8> {
        let (id, until) = (self.scene.cluster.genesis.cluster_id(), TimeMs(now_ms() + WITHIN_MS));
        SignedCommand::sign(&id, self.scene.channel, self.org, command, [5; 16], until, &self.key).encode()
    }

    /// Hands in what somebody has signed.
    async fn hands_in(&self, signed: Vec<u8>) -> Result<Outcome, ClientError> {
        Ok(self.client.channel_command(self.scene.channel, signed).await?.outcome)
    }

    /// Where a proposal stands after this approval.
    async fn approves(&self, proposal: Hash32) -> ProposalState {
        let outcome = self.hands_in(self.signs(&Command::Approve { proposal })).await.unwrap();
        let Outcome::Proposal { id, state } = outcome else { panic!("{outcome:?}") };
        assert_eq!(id, proposal);
        state
    }
}

/// What the channel or a door on the way to it answers.
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>, code: &str, rule: &str) {
    let error = answer.expect_err(rule);
    assert_eq!(error.code(), code, "{error}");
    assert!(error.to_string().contains(rule), "{rule}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clerks_and_nodes_decide_what_a_policy_asks_them_and_nothing_else() {
    let scene = Scene::set(&[(A, &[NodeId(1), NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let consortium = Consortium::of(&scene.cluster);
    let clerks = [Hand::clerk(&scene, "org-a", A, INSIDE), Hand::clerk(&scene, "org-b", B, NodeId(2))];
    for clerk in &clerks {
        let add = Command::AddKey { key: clerk.key.public(), role: Role::Member };
        assert_eq!(consortium.act(scene.channel, clerk.org, &add).await.unwrap(), Outcome::Done);
    }
    for (subject, role) in [(Matter::Freeze, Role::Member), (Matter::Anchors, Role::Node)] {
        let policy = Policy::members(Quorum::All, role);
        consortium.decide(scene.channel, Change::Policy { subject, policy }, &[A, B]).await;
    }
    let propose = async |change: Change| {
        let until_ms = TimeMs(now_ms() + 10 * WITHIN_MS);
        let told = consortium.act(scene.channel, A, &Command::Propose { change, until_ms }).await.unwrap();
        let Outcome::Proposal { id, state: ProposalState::Open } = told else { panic!("{told:?}") };
        id
    };

    let freeze = propose(Change::Freeze).await;
    assert_eq!(clerks[0].approves(freeze).await, ProposalState::Open);
    // An admin does not stand for a clerk.
    let by_admin = consortium.act(scene.channel, B, &Command::Approve { proposal: freeze }).await;
    refused(by_admin, "channel_refused", "proposal_not_elector");
    // Nor does a clerk of an outsider, not even with what a member's clerk has signed.
    for router in [OUTSIDE, NodeId(2)] {
        let outsider = Hand::clerk(&scene, "org-c", OrgId(3), router);
        for signed in [
            outsider.signs(&Command::Approve { proposal: freeze }),
            clerks[1].signs(&Command::Approve { proposal: freeze }),
        ] {
            refused(outsider.hands_in(signed).await, "channel_refused", "channel_not_member");
        }
    }
    // What clerks are not asked, their certificates do not carry, and the registry takes nothing from them at all.
    let leave = consortium_signed(&clerks[1], &Command::Leave, &consortium);
    refused(clerks[1].hands_in(leave).await, "channel_refused", "channel_role");
    let rebalance = clerks[1].signs(&Command::Leave);
    refused(clerks[1].client.command(rebalance).await, "access_denied", "client");
    assert_eq!(clerks[1].approves(freeze).await, ProposalState::Applied);

    let anchors = propose(Change::Anchors { org: A, nodes: vec![INSIDE] }).await;
    assert_eq!(Hand::node(&scene, A, NodeId(4)).approves(anchors).await, ProposalState::Open);
    assert_eq!(Hand::node(&scene, B, NodeId(2)).approves(anchors).await, ProposalState::Applied);
}

/// As [`Hand::signs`], by the admin of the same organisation: the key may, and the certificate that brings it may not.
fn consortium_signed(hand: &Hand<'_>, command: &Command, consortium: &Consortium<'_>) -> Vec<u8> {
    let (id, until) = (hand.scene.cluster.genesis.cluster_id(), TimeMs(now_ms() + WITHIN_MS));
    let key = consortium.key(hand.org);
    SignedCommand::sign(&id, hand.scene.channel, hand.org, command, [6; 16], until, &key).encode()
}
