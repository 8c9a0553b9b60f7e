//! An auditor outside a channel whose grant names assets: it reads what is of these in the channel, and of nothing else
//! whether it is there.

use bytes::Bytes;
use channel::{AuditGrant, Change, Scope};
use ledger::{AccountRecord, Address, AssetId, Balance, GroupId, NodeId, TimeMs};
use prost::Message;
use proto::v1;
use proto::v1::query_request::Query;
use proto::views::{AccountView, HistoryPage};
use seamark_cli::setup::Subject;
use tonic::transport::Channel;

use crate::isolation::{A, B, C, INSIDE, OUTSIDE, Scene};
use crate::support::bank::now_ms;
use crate::support::consortium::Consortium;
use crate::support::rpc::{call, questions};

/// What a router answers.
async fn asks(door: &Channel, request: v1::QueryRequest) -> v1::QueryReply {
    let answer = call(door, "/seamark.v1.Router/Query", request.encode_to_vec().into()).await.unwrap();
    v1::QueryReply::decode(answer.unwrap()).unwrap()
}

/// The same question about another account.
fn about(mut request: v1::QueryRequest, account: Address) -> v1::QueryRequest {
    let address = Bytes::copy_from_slice(&account.0);
    match request.query.as_mut().unwrap() {
        Query::Account(query) => query.address = address,
        Query::AccountView(query) => query.address = address,
        Query::History(query) => query.address = address,
        other => panic!("{other:?} is not about an account"),
    }
    request
}

fn value<T: borsh::BorshDeserialize>(reply: &v1::QueryReply) -> T {
    assert!(reply.found && reply.refusal.is_none(), "{reply:?}");
    borsh::from_slice(&reply.values[0]).unwrap()
}

async fn grant(scene: &Scene, channel: GroupId, asset: AssetId) {
    let (credential, until_ms) = (None, TimeMs(now_ms() + 3_600_000));
    let grant = AuditGrant { org: C, credential, scope: Scope::Assets(vec![asset]), until_ms, until_height: None };
    Consortium::of(&scene.cluster).decide(channel, Change::GrantAudit(grant), &[A, B]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_auditor_of_an_asset_reads_what_is_of_it_and_of_nothing_else_whether_it_is_there() {
    let scene = Scene::set(&[(A, &[INSIDE, NodeId(4)]), (B, &[NodeId(2)])], &[A, B]).await;
    let auditor = scene.door(OUTSIDE, &scene.issue("org-c", Subject::auditor));
    let client = scene.door(OUTSIDE, &scene.issue("org-c", Subject::client));
    let (asset, payer) = (scene.bank.asset, scene.payer.address);

    // Of an asset that nobody has there: whoever has others is answered for as if it were not there.
    grant(&scene, scene.channel, AssetId([9; 16])).await;
    for kind in ["account", "account_view", "history"] {
        let reply = asks(&auditor, scene.question(kind)).await;
        assert!(reply.partial && reply.refusal.is_none(), "{kind}: {reply:?}");
        scene.is_clean(kind, &reply.encode_to_vec());
        assert_eq!(reply.found, kind == "history", "{kind}");
    }
    let empty: HistoryPage = value(&asks(&auditor, scene.question("history")).await);
    assert_eq!((empty.lines, empty.before), (Vec::new(), None));
    let refused = asks(&auditor, scene.question("asset")).await.refusal.expect("it is another asset");
    assert_eq!(refused.code, "channel_refused");

    grant(&scene, scene.channel, asset).await;
    let balance = |posted| vec![(asset, Balance { posted, held: 0 })];
    let paid: AccountRecord = value(&asks(&auditor, scene.question("account")).await);
    assert_eq!(paid.balances, balance(77));
    let reply = asks(&auditor, about(scene.question("account_view"), payer)).await;
    let view: AccountView = value(&reply);
    assert_eq!(view.record.balances, balance(923));
    assert_eq!(view.record.auth, None, "keys are of no asset");
    assert!(reply.partial);
    let history: HistoryPage = value(&asks(&auditor, scene.question("history")).await);
    assert_eq!(history.lines.len(), 1, "{history:?}");
    let reply = asks(&auditor, scene.question("asset")).await;
    let total: u128 = borsh::from_slice(&reply.values[1]).unwrap();
    assert_eq!((reply.partial, total), (false, 1_000), "all of it that is in the channel");

    // What is not of an asset alone, and the record with its proof, stay closed.
    let proved = v1::QueryRequest { prove: true, ..scene.question("account") };
    let mut closed = vec![("a proof".to_owned(), proved)];
    for kind in questions() {
        let of_channel = ["entry", "transaction", "block", "governance", "exclusion", "evidence"];
        if of_channel.contains(&kind.as_str()) {
            let question = scene.question(&kind);
            closed.push((kind, question));
        }
    }
    assert_eq!(closed.len(), 7, "the questions about a channel have other names");
    for (what, question) in closed {
        let reply = asks(&auditor, question).await;
        scene.is_clean(&what, &reply.encode_to_vec());
        assert!(reply.refusal.is_some() && reply.values.is_empty(), "{what}: {reply:?}");
    }
    // The grant is the auditors': no other role of the organisation reads by it.
    for kind in ["account", "account_view", "history", "asset"] {
        let refused = asks(&client, scene.question(kind)).await.refusal.unwrap_or_else(|| panic!("{kind}"));
        assert_eq!(refused.code, "channel_refused");
    }
    let member = scene.door(INSIDE, &scene.issue("org-a", Subject::auditor));
    assert!(!asks(&member, scene.question("account")).await.partial, "a member's sees all of it");
}
