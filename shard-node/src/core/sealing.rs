//! Value flows of a channel: kept beside its blocks, committed to by the state root, and shown by no
//! header (`docs/adr/0018-sealed-value-flows.md`).

use ledger::flow::{FlowHead, FlowLine, SEAL_VERSION, SealedFlow, next_salt};
use ledger::hash::Hash32;
use ledger::ids::Height;
use ledger::schema;
use ledger::view::View;

/// Seals the value flow of the block that `payload` makes. The salt moves with every block, so that
/// all that was ever sequenced goes into it.
pub(super) fn seal(view: &mut View<'_>, height: Height, payload: &[u8], lines: Vec<FlowLine>) {
    let before: Hash32 = view.load(&schema::flow_salt()).unwrap_or(Hash32::ZERO);
    let salt = next_salt(&before, payload);
    view.store(schema::flow_salt(), &salt);
    if lines.is_empty() {
        return;
    }
    let sealed = SealedFlow { version: SEAL_VERSION, salt, lines };
    let head: FlowHead = view.load(&schema::flow_head()).unwrap_or_default();
    view.store(schema::flow_head(), &head.after(&sealed.commitment(height)));
    view.store(schema::sealed_flow(height), &sealed);
}
