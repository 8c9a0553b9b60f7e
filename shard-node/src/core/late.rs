//! What a node begins with that comes to a born shard too late to make its first state: the header of its first block.
//!
//! That header follows from what the beacon's certified state says of the shard, so a snapshot of another member is judged
//! by it as any other is by a replica's own last block. There are no accounts: a state like this is marked, and nothing
//! runs on it before the snapshot is there.

use borsh::BorshSerialize;
use bytes::Bytes;
use consensus::port::AppliedState;
use ledger::committee::Committee;
use ledger::ids::{ClusterId, Incarnation};
use ledger::layout::Layout;
use ledger::lineage::{BornShard, ORIGIN_VERSION, Origin};
use ledger::schema;

use crate::core::applied::AppliedRecord;
use crate::core::birth::first_header;
use crate::core::follow::Writes;
use crate::core::marks;
use crate::core::records::BlockRecord;

/// The writes of it, by what the registry shows: the shard, the layout, and the committee of the shard that is in force.
/// `None` where it does not say with which root the shard began.
#[must_use]
pub fn late_state(cluster: ClusterId, born: &BornShard, layout: &Layout, committee: &Committee) -> Option<Writes> {
    let root = *born.roots.first()?;
    let of = (cluster, born.group, born.layout);
    let header = first_header(of, (born.committee, Incarnation(0)), &born.parents, root);
    let applied = AppliedRecord {
        version: 1,
        consensus: AppliedState::default(),
        height: header.height,
        header_hash: header.hash(),
        time_ms: header.time_ms,
        state_root: header.state_root,
    };
    let origin = Origin {
        version: ORIGIN_VERSION,
        job: born.job,
        first: header.height,
        header_hash: header.hash(),
        parents: born.parents.clone(),
        spine: Vec::new(),
        archived: Vec::new(),
    };
    Some(vec![
        pair(schema::header(header.height), &header),
        pair(schema::block(header.height), &BlockRecord::default()),
        pair(schema::applied(), &applied),
        pair(schema::origin(), &origin),
        pair(schema::layout(), layout),
        pair(schema::committee(born.group, &committee.hash()), committee),
        pair(schema::current_committee(born.group), committee),
        pair(marks::lacking(), &true),
    ])
}

fn pair<T: BorshSerialize>(key: Vec<u8>, value: &T) -> (Vec<u8>, Option<Bytes>) {
    (key, Some(borsh::to_vec(value).expect("writing to memory does not fail").into()))
}

#[cfg(test)]
mod tests {
    use cross_shard::Message;
    use ledger::ids::Height;

    use super::*;
    use crate::core::birth::birth;
    use crate::core::elastic::{Chain, JOB, LEFT, RIGHT, asset, client, mint, split_seal};
    use crate::core::support::{SHARD, genesis};
    use crate::core::tally::Tally;

    #[test]
    fn whoever_comes_late_knows_the_first_header_by_the_word_of_the_beacon() {
        let mut parent = Chain::new(SHARD);
        let told = parent.told(&[Message::AssetUpdate(asset())]);
        parent.block(vec![told, mint(&client(LEFT), 70, 1), mint(&client(RIGHT), 30, 2)]);
        let sealing = parent.told(&[Message::Seal(split_seal())]);
        parent.block(vec![sealing]);
        let seal = split_seal();
        let cluster = genesis().cluster_id();
        let (left, right) = parent.tree.clone().split().expect("it can be cut");
        let roots = [left, right].map(|mut half| half.subtree_root());
        let tallies: Vec<_> = seal
            .children
            .iter()
            .map(|child| Tally::of(cluster, child.prefix, &parent.state).expect("it is counted").counted())
            .collect();
        for (child, root) in seal.children.iter().zip(&roots) {
            let first = birth(&[&parent.state], child.group, &roots, &tallies).expect("it is born");
            let origin: Origin = {
                let write = first.writes.iter().find(|(key, _)| *key == schema::origin()).expect("its origin");
                borsh::from_slice(write.1.as_ref().expect("a value")).expect("it decodes")
            };
            let born = BornShard {
                version: 1,
                group: child.group,
                prefix: child.prefix,
                committee: child.committee.hash(),
                job: JOB,
                layout: seal.layout.version,
                parents: origin.parents.clone(),
                roots: vec![*root],
            };
            let late = late_state(cluster, &born, &seal.layout, &child.committee).expect("it has a root");
            let of = |key: Vec<u8>| late.iter().find(|(found, _)| *found == key).expect("it is written").1.clone();
            assert_eq!(of(schema::applied()), Some(borsh::to_vec(&first.applied).expect("encoded").into()));
            let height: Height = first.header.height;
            assert_eq!(of(schema::header(height)), Some(borsh::to_vec(&first.header).expect("encoded").into()));
            assert_eq!(
                late_state(cluster, &BornShard { roots: Vec::new(), ..born }, &seal.layout, &child.committee),
                None
            );
        }
    }
}
