//! Organisations that found channels and govern them: what their admins would send, over routers of their own.

use beacon::{BeaconCommand, SignedCommand};
use channel::opening::first_policies;
use channel::{Change, Command, FoundingAct, Hosting, Opening, Outcome, Policy, Quorum, Role, Subject, Terms};
use client::{Client, ClientError, CommandFate, FoundingFate};
use ledger::{AssetId, Committee, Engine, GroupId, Hash32, NodeId, OrgId, SecretKey, TimeMs};

use super::bank::now_ms;
use super::cluster::TestCluster;
use super::eventually;

/// How long what is signed may wait for its turn.
const WITHIN_MS: u64 = 60_000;

/// The organisations of a cluster, as their admins act.
pub struct Consortium<'a> {
    cluster: &'a TestCluster,
    number: std::cell::Cell<u8>,
}

impl<'a> Consortium<'a> {
    pub fn of(cluster: &'a TestCluster) -> Self {
        Self { cluster, number: std::cell::Cell::new(0) }
    }

    pub fn key(&self, org: OrgId) -> SecretKey {
        self.cluster.dir.admin_key(self.name(org)).unwrap()
    }

    fn name(&self, org: OrgId) -> &str {
        &self.cluster.genesis.orgs.iter().find(|known| known.id == org).unwrap().name
    }

    /// The organisation's admin, over the routers of its own nodes.
    pub fn client(&self, org: OrgId) -> Client {
        self.client_over(org, |node| self.cluster.info(node).org == org && self.cluster.runs(node))
    }

    /// The organisation's admin, over the routers of these nodes.
    pub fn client_over(&self, org: OrgId, nodes: impl Fn(NodeId) -> bool) -> Client {
        let mut profile = self.cluster.profile();
        profile.routers.retain(|router| router.node.is_some_and(&nodes));
        let folder = self.cluster.dir.admin_dir(self.name(org));
        (profile.cert, profile.key) = (folder.join("admin.pem"), folder.join("admin.key"));
        Client::lazy(&profile).unwrap()
    }

    fn salt(&self) -> [u8; 16] {
        self.number.set(self.number.get() + 1);
        [self.number.get(); 16]
    }

    /// Has the beacon execute an organisation's command.
    pub async fn beacon(&self, org: OrgId, command: &BeaconCommand) -> Result<CommandFate, ClientError> {
        let (id, until) = (self.cluster.genesis.cluster_id(), TimeMs(now_ms() + WITHIN_MS));
        let signed = SignedCommand::sign(&id, command, org, self.salt(), until, &self.key(org));
        self.client(org).command(signed.encode()).await
    }

    /// Hands over to the beacon what an organisation's admin has signed, be it a command or not.
    pub async fn beacon_bytes(&self, org: OrgId, command: Vec<u8>) -> Result<CommandFate, ClientError> {
        let (id, until) = (self.cluster.genesis.cluster_id(), TimeMs(now_ms() + WITHIN_MS));
        let any = SignedCommand::sign(&id, &BeaconCommand::Rebalance, org, self.salt(), until, &self.key(org));
        let mut signed = SignedCommand { command, ..any };
        signed.signature = self.key(org).sign(&signed.digest(&id));
        self.client(org).command(signed.encode()).await
    }

    /// Has a channel execute an organisation's command.
    pub async fn act(&self, channel: GroupId, org: OrgId, command: &Command) -> Result<Outcome, ClientError> {
        let (id, until) = (self.cluster.genesis.cluster_id(), TimeMs(now_ms() + WITHIN_MS));
        let signed = channel::SignedCommand::sign(&id, channel, org, command, self.salt(), until, &self.key(org));
        Ok(self.client(org).channel_command(channel, signed.encode()).await?.outcome)
    }

    /// Founds a channel that these organisations host on these nodes. Everything in it takes a majority.
    pub async fn found(&self, name: &str, hosts: &[(OrgId, &[NodeId])]) -> GroupId {
        self.found_by(Engine::Raft, name, hosts).await
    }

    /// As [`Consortium::found`], ordered by this engine.
    pub async fn found_by(&self, engine: Engine, name: &str, hosts: &[(OrgId, &[NodeId])]) -> GroupId {
        self.found_with(engine, name, hosts, |nodes| nodes[..1].to_vec()).await
    }

    /// As [`Consortium::found_by`], with these of each organisation's nodes as its anchors. The channel goes by what was
    /// promised when this returns.
    pub async fn found_with(
        &self,
        engine: Engine,
        name: &str,
        hosts: &[(OrgId, &[NodeId])],
        anchors: impl Fn(&[NodeId]) -> Vec<NodeId>,
    ) -> GroupId {
        let (channel, opening) = self.decide_founding(engine, name, hosts, anchors).await;
        // Routers hear of it from the beacon, each in its own time.
        for (org, _) in hosts {
            let client = self.client(*org);
            eventually("the members' routers know the channel", async || {
                let reply = client.cluster().await.map_err(|error| error.to_string())?;
                let all = reply.committees.iter().map(|bytes| borsh::from_slice::<Committee>(bytes).unwrap());
                all.into_iter().find(|known| known.group == channel).map(drop).ok_or("not yet".to_owned())
            })
            .await;
            // Its nodes fetch how it began, and start it, when they have heard of it.
            eventually("the channel answers its members", async || client.governance(channel).await).await;
        }
        assert_eq!(self.act(channel, hosts[0].0, &Command::Open { opening }).await.unwrap(), Outcome::Done);
        channel
    }

    /// As [`Consortium::found_with`], without waiting for the channel: its first step takes all of its nodes, of which one
    /// may be down. Returns with it what was promised, which nobody has given it yet.
    pub async fn decide_founding(
        &self,
        engine: Engine,
        name: &str,
        hosts: &[(OrgId, &[NodeId])],
        anchors: impl Fn(&[NodeId]) -> Vec<NodeId>,
    ) -> (GroupId, Opening) {
        let hosting = |nodes: &[NodeId]| Hosting { nodes: nodes.to_vec(), anchors: anchors(nodes) };
        let majority = Policy::members(Quorum::Majority, Role::Admin);
        let opening = Opening::new([7; 32], Subject::ALL.map(|subject| (subject, majority.clone())).to_vec());
        let (proposer, nodes) = hosts[0];
        let admins = self.client(proposer).admins().await.unwrap();
        let readers = hosts.iter().map(|(org, _)| (*org, admins[org])).collect();
        let promise = client::opening::seal(&self.cluster.genesis.cluster_id(), proposer, &opening, &readers).unwrap();
        let terms = Terms {
            name: name.to_owned(),
            invited: hosts[1..].iter().map(|(org, _)| *org).collect(),
            engine,
            founding: Policy::members(Quorum::All, Role::Admin),
            policies: first_policies(),
        };
        let (brings, until_ms) = (hosting(nodes), TimeMs(now_ms() + 10 * WITHIN_MS));
        let propose = BeaconCommand::ProposeSealedChannel { terms, promise, hosting: brings, until_ms };
        let mut last = self.beacon(proposer, &propose).await.unwrap().founding.unwrap();
        for (org, nodes) in &hosts[1..] {
            assert_eq!(last.channel, None, "it is founded once all have approved");
            let act = FoundingAct::Approve(hosting(nodes));
            let command = BeaconCommand::ActOnChannel { founding: last.id, act };
            last = self.beacon(*org, &command).await.unwrap().founding.unwrap();
        }
        let FoundingFate { channel, abandoned: false, .. } = last else { panic!("{last:?}") };
        (channel.expect("the last approval founds it"), opening)
    }

    /// Proposes a change; these organisations approve it, the last one so that it is in force.
    pub async fn decide(&self, channel: GroupId, change: Change, orgs: &[OrgId]) -> Hash32 {
        let until_ms = TimeMs(now_ms() + 10 * WITHIN_MS);
        let proposed = self.act(channel, orgs[0], &Command::Propose { change, until_ms }).await.unwrap();
        let Outcome::Proposal { id, mut state } = proposed else { panic!("{proposed:?}") };
        for org in &orgs[1..] {
            assert_eq!(state, channel::ProposalState::Open);
            match self.act(channel, *org, &Command::Approve { proposal: id }).await.unwrap() {
                Outcome::Proposal { id: same, state: next } if same == id => state = next,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(state, channel::ProposalState::Applied);
        id
    }

    /// Permits an asset in a channel.
    pub async fn permit(&self, channel: GroupId, asset: AssetId, orgs: &[OrgId]) {
        self.decide(channel, Change::PermitAsset { asset }, orgs).await;
    }
}
