//! A channel with something in it, and those who come to its nodes with certificates of the cluster.

use client::net::{self, Identity};
use client::{Client, Consistency, Wait};
use ledger::{Address, Engine, GroupId, Height, LedgerId, Move, NodeId, OrgId, TxId};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use seamark_cli::setup::{Authority, Subject};
use tonic::transport::Channel;

use super::INSIDE;
use crate::support::bank::{Bank, Wallet, wallet};
use crate::support::cluster::{TestCluster, Wanted};
use crate::support::consortium::Consortium;
use crate::support::eventually;
use crate::support::wire::Wires;

/// Stands in a transaction of the channel, and nowhere else.
pub const MEMO: &[u8] = b"two tonnes of cold-rolled steel";

/// A channel with something in it that nobody outside may see.
pub struct Scene {
    pub cluster: TestCluster,
    pub bank: Bank,
    pub channel: GroupId,
    pub payer: Wallet,
    /// Was paid in the channel, and has never been heard of outside.
    pub payee: Wallet,
    /// That payment.
    pub txid: TxId,
    /// Its block.
    pub height: Height,
}

impl Scene {
    /// In a cluster of processes.
    pub async fn set(hosts: &[(OrgId, &[NodeId])], voters: &[OrgId]) -> Self {
        Box::pin(Self::over(TestCluster::start_processes(wanted()).await, hosts, voters)).await
    }

    /// As [`Scene::set`], with all that goes over the wires recorded.
    pub async fn set_behind_wires(hosts: &[(OrgId, &[NodeId])], voters: &[OrgId]) -> (Self, Wires) {
        let mut cluster = TestCluster::prepare(&wanted());
        let wires = Wires::before(&cluster).await;
        cluster.run_processes().await;
        (Box::pin(Self::over(cluster, hosts, voters)).await, wires)
    }

    /// As [`Scene::set`], in a cluster in this process: for what is done to a node that nobody can do from outside.
    /// Such a node has no log file.
    pub async fn set_in_this_process(hosts: &[(OrgId, &[NodeId])], voters: &[OrgId]) -> Self {
        Box::pin(Self::over(TestCluster::start(wanted()).await, hosts, voters)).await
    }

    async fn over(cluster: TestCluster, hosts: &[(OrgId, &[NodeId])], voters: &[OrgId]) -> Self {
        let bank = Bank::open(&cluster.client()).await;
        let (payer, payee) = (wallet("payer", 0), wallet("payee", 0));
        let consortium = Consortium::of(&cluster);
        // All of them answer who asks for mail.
        let channel = consortium.found_with(Engine::Raft, "steel", hosts, <[NodeId]>::to_vec).await;
        consortium.permit(channel, bank.asset, voters).await;
        bank.fund([&payer], 1_000).await;
        let ledger = LedgerId::of_channel(channel);
        let (asset, amount) = (bank.asset, 1_000);
        let bring = Move::Transfer { from: payer.address, to: payer.address, asset, amount, ledger };
        bank.execute(vec![bring], &[&payer.key]).await.unwrap();
        let member = Self::member(&cluster);
        eventually("the money is in the channel", async || {
            let answer = member.account_of(ledger, payer.address, Consistency::Linearizable, false).await;
            let found = answer.map_err(|error| error.to_string())?.value;
            found.map(drop).ok_or_else(|| "no account yet".to_owned())
        })
        .await;
        let pay = bank.pay(&payer, payee.address, 77);
        let settled = member.execute(vec![(ledger, pay)], MEMO, &[&payer.key], Wait::Receipt).await.unwrap();
        let client::Settled::Receipt(receipt) = settled else { panic!("{settled:?}") };
        let (txid, height) = (receipt.txid, receipt.height);
        Self { cluster, bank, channel, payer, payee, txid, height }
    }

    /// A client of organisation A.
    pub fn member(cluster: &TestCluster) -> Client {
        cluster.client_of(INSIDE)
    }

    pub fn issue(&self, org: &str, subject: impl Fn(&str, &str) -> Subject) -> Identity {
        self.cluster.authority(org).issue(&subject("somebody", org)).unwrap().identity()
    }

    /// As an organisation's issuing authority makes it, below the one that the registry has; with that one's
    /// certificate behind its own.
    pub fn issue_below(&self, org: &str, subject: &Subject) -> Identity {
        let above = self.cluster.authority(org);
        let above = Issuer::from_ca_cert_pem(above.cert_pem(), KeyPair::from_pem(&above.key_pem()).unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, format!("issuing ca of {org}"));
        let cert = params.signed_by(&key, &above).unwrap().pem();
        let leaf = Authority::from_pem(&cert, &key.serialize_pem()).unwrap().issue(subject).unwrap();
        Identity::new(format!("{}{cert}", leaf.cert_pem), leaf.key_pem.as_str())
    }

    /// The client port of a node.
    pub fn door(&self, node: NodeId, identity: &Identity) -> Channel {
        let addr = &self.cluster.info(node).client_addr;
        net::connect(addr, identity, &self.cluster.roots(), &net::node_server_name(node)).unwrap()
    }

    /// The port between nodes.
    pub fn back_door(&self, node: NodeId, identity: &Identity) -> Channel {
        let addr = &self.cluster.info(node).peer_addr;
        net::connect(addr, identity, &self.cluster.roots(), &net::node_server_name(node)).unwrap()
    }

    /// A router's certificate.
    pub fn router_of(&self, org: &str) -> Identity {
        self.issue(org, |name, org| Subject::router(name, org, vec!["127.0.0.1".to_owned()]))
    }

    /// Everything in these bytes is for everybody.
    pub fn is_clean(&self, what: &str, bytes: &[u8]) {
        let has = |secret: &[u8]| bytes.windows(secret.len()).any(|part| part == secret);
        assert!(!has(&self.payee.address.0), "{what} shows an account of the channel");
        assert!(!has(MEMO), "{what} shows a memo of the channel");
        assert!(!has(&self.txid.0.0), "{what} shows a transaction of the channel");
    }
}

/// The shape of the cluster.
fn wanted() -> Wanted {
    Wanted { nodes: 5, shards: 1, ..Wanted::default() }
}

/// What an account has in the channel.
pub async fn balance(client: &Client, scene: &Scene, address: Address) -> u128 {
    let ledger = LedgerId::of_channel(scene.channel);
    let answer = client.account_of(ledger, address, Consistency::Linearizable, false).await.unwrap();
    let balances = answer.value.map(|record| record.balances).unwrap_or_default();
    balances.iter().find(|line| line.0 == scene.bank.asset).map_or(0, |line| line.1.posted)
}
