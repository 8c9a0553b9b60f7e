//! Decided values in the group's log: an entry as raft frames it, with the proof as its seal, so that whoever
//! reads the log finds the batch, and a member that is behind the whole value.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::crypto::Signature;
use ledger::hash::Hash32;
use ledger::ids::NodeId;

use crate::bft::{Body, Decided, Value};
use crate::port::Position;
use crate::raft::codec::{self, CodecError};

/// Everything of a decided value but its index and its batch.
#[derive(BorshSerialize, BorshDeserialize)]
struct Seal {
    version: u8,
    previous: Hash32,
    proposer: NodeId,
    made_in: u32,
    heir: Option<NodeId>,
    lasted_ms: u64,
    decided_in: u32,
    signatures: Vec<(NodeId, Signature)>,
}

/// The entry of a decided value.
pub(super) fn encode(at: &Position, decided: &Decided) -> Bytes {
    let value = &decided.value;
    let seal = Seal {
        version: value.version,
        previous: value.previous,
        proposer: value.proposer,
        made_in: value.round,
        heir: value.heir,
        lasted_ms: value.lasted_ms,
        decided_in: decided.round,
        signatures: decided.signatures.clone(),
    };
    let seal = borsh::to_vec(&seal).expect("writing to memory does not fail");
    let batch = match &value.body {
        Body::Blank => None,
        Body::Batch(batch) => Some(batch.as_ref()),
    };
    codec::encode_sealed(at, &seal, batch)
}

/// Reverse of [`encode`]; `None` for an entry of another engine.
pub(super) fn decode(index: u64, entry: &Bytes) -> Result<Option<Decided>, CodecError> {
    let Some((seal, batch)) = codec::decode_sealed(index, entry)? else { return Ok(None) };
    let seal = Seal::try_from_slice(&seal).map_err(|error| CodecError(format!("entry {index}: seal: {error}")))?;
    let value = Value {
        version: seal.version,
        index,
        previous: seal.previous,
        proposer: seal.proposer,
        round: seal.made_in,
        heir: seal.heir,
        lasted_ms: seal.lasted_ms,
        body: batch.map_or(Body::Blank, Body::Batch),
    };
    Ok(Some(Decided { value, round: seal.decided_in, signatures: seal.signatures }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use storage::{LogStore, MemLog};

    use super::*;
    use crate::bft::VALUE_VERSION;
    use crate::port::Payload;
    use crate::raft::read_log;

    fn decided(index: u64, body: Body) -> Decided {
        let value = Value {
            version: VALUE_VERSION,
            index,
            previous: Hash32([3; 32]),
            proposer: NodeId(2),
            round: 4,
            heir: Some(NodeId(1)),
            lasted_ms: 700,
            body,
        };
        Decided { value, round: 5, signatures: vec![(NodeId(1), Signature([7; 64])), (NodeId(2), Signature([8; 64]))] }
    }

    #[test]
    fn an_entry_keeps_the_proof_and_reads_as_its_batch() {
        let at = Position { term: 3, leader: 9, index: 5 };
        let both = [decided(5, Body::Batch(Bytes::from_static(b"batch"))), decided(6, Body::Blank)];
        let log = MemLog::immediate("decided");
        for one in &both {
            let index = one.value.index;
            let entry = encode(&Position { index, ..at }, one);
            assert_eq!(decode(index, &entry), Ok(Some(one.clone())));
            for cut in 18..entry.len() {
                // A batch that is cut is another batch; whoever reads it finds that the proof does not hold.
                if let Ok(Some(other)) = decode(index, &entry.slice(..cut)) {
                    assert_ne!(other.value.id(), one.value.id());
                }
            }
            log.append(vec![(index, entry)], Box::new(|done| done.unwrap()));
        }
        let read = read_log(&log, 0..10).unwrap();
        let payloads: Vec<_> = read.iter().map(|entry| (entry.position.index, entry.payload.clone())).collect();
        assert_eq!(payloads, [(5, Payload::Batch(Bytes::from_static(b"batch"))), (6, Payload::Blank)]);
        assert_eq!(read[0].position, at);
    }
}
