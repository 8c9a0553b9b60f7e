//! The envelope: form, signature, deadline, idempotency.

use channel::limits::{COMMAND_BYTES_MAX, COMMANDS_OPEN_PER_ORG_MAX};
use channel::{ChannelReject as R, Command, Outcome, Role, SignedCommand};
use ledger::hash::Hash32;
use ledger::ids::{ClusterId, GroupId, OrgId, TimeMs};

use crate::support::{CLUSTER, DAY, GROUP, World, admin, key};

fn add_key(org: u16, purpose: &str) -> Command {
    Command::AddKey { key: key(org, purpose).public(), role: Role::Member }
}

#[test]
fn what_needs_no_state_is_refused_first() {
    let mut world = World::five();
    let command = add_key(1, "new");
    let good = world.sign_with(1, &admin(1), &command);
    let sign = |cluster, group, until, secret: &_| {
        SignedCommand::sign(cluster, group, OrgId(1), &command, [9; 16], TimeMs(until), secret)
    };
    let now = world.now;
    let mut unsigned = good.clone();
    unsigned.signature.0[40] ^= 1;
    let mut other_version = good.clone();
    other_version.version = 2;
    let mut body = good.clone();
    body.body.push(0);
    let mut for_other = good.clone();
    for_other.org = OrgId(2);
    let mut trailing = good.encode();
    trailing.push(0);
    for (bytes, expected) in [
        (vec![], R::Malformed),
        (trailing, R::Malformed),
        (other_version.encode(), R::Malformed),
        (body.encode(), R::Malformed),
        (vec![0; COMMAND_BYTES_MAX + 1], R::TooLarge),
        (sign(&ClusterId(Hash32([2; 32])), GROUP, now + 1, &admin(1)).encode(), R::WrongCluster),
        (sign(&CLUSTER, GroupId::channel(8), now + 1, &admin(1)).encode(), R::WrongChannel),
        (unsigned.encode(), R::BadSignature),
        (for_other.encode(), R::BadSignature),
        (sign(&CLUSTER, GROUP, now - 1, &admin(1)).encode(), R::Expired),
        (sign(&CLUSTER, GROUP, now + 2 * DAY, &admin(1)).encode(), R::ValidTooLong),
        (sign(&CLUSTER, GROUP, now + DAY / 2, &admin(2)).encode(), R::KeyUnknown),
    ] {
        assert_eq!(world.submit(&bytes).unwrap_err().reject, expected);
    }
    assert_eq!(world.submit(&good.encode()), Ok(Outcome::Done));
}

#[test]
fn a_high_s_is_refused() {
    // n - s of a good signature verifies mathematically and is refused.
    const ORDER: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xBA, 0xAE,
        0xDC, 0xE6, 0xAF, 0x48, 0xA0, 0x3B, 0xBF, 0xD2, 0x5E, 0x8C, 0xD0, 0x36, 0x41, 0x41,
    ];
    let mut world = World::five();
    let mut signed = world.sign_with(1, &admin(1), &add_key(1, "new"));
    let mut borrow = 0i16;
    for place in (0..32).rev() {
        let digit = i16::from(ORDER[place]) - i16::from(signed.signature.0[32 + place]) - borrow;
        borrow = i16::from(digit < 0);
        signed.signature.0[32 + place] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    assert_eq!(world.submit(&signed.encode()).unwrap_err().reject, R::BadSignature);
}

#[test]
fn sent_again_it_returns_the_first_outcome_and_changes_nothing() {
    let mut world = World::five();
    let bytes = world.sign_with(1, &admin(1), &add_key(1, "new")).encode();
    let first = world.submit(&bytes);
    assert_eq!(first, Ok(Outcome::Done));
    let after = world.state.clone();
    assert_eq!(world.submit(&bytes), first);
    assert_eq!(world.state, after);
    // Even when the key has gone since, and until the command is forgotten also past its deadline.
    world.run(1, &add_key(1, "x")).unwrap();
    world.run(1, &Command::AddKey { key: key(1, "second").public(), role: Role::Admin }).unwrap();
    world.run_with(1, &key(1, "second"), &Command::RevokeKey { key: admin(1).public() }).unwrap();
    assert_eq!(world.submit(&bytes), first);
    world.now += DAY;
    assert_eq!(world.submit(&bytes), first);
    world.run_with(1, &key(1, "second"), &add_key(1, "y")).unwrap();
    assert_eq!(world.submit(&bytes).unwrap_err().reject, R::Expired);
}

#[test]
fn a_refusal_is_not_remembered() {
    let mut world = World::five();
    let bytes = world.sign_with(1, &admin(1), &Command::RevokeKey { key: key(1, "later").public() }).encode();
    assert_eq!(world.submit(&bytes).unwrap_err().reject, R::KeyUnknown);
    world.run(1, &add_key(1, "later")).unwrap();
    assert_eq!(world.submit(&bytes), Ok(Outcome::Done));
}

#[test]
fn one_member_cannot_fill_the_memory_of_another() {
    let mut world = World::five();
    let mut keys = [key(1, "odd"), key(1, "even")];
    world.run(1, &Command::AddKey { key: keys[0].public(), role: Role::Member }).unwrap();
    for _ in 1..COMMANDS_OPEN_PER_ORG_MAX {
        let rotate = Command::RotateKey { old: keys[0].public(), new: keys[1].public() };
        let until = TimeMs(world.now + DAY / 2);
        let salt = *world.height.to_be_bytes().repeat(2).first_chunk().unwrap();
        let signed = SignedCommand::sign(&CLUSTER, GROUP, OrgId(1), &rotate, salt, until, &admin(1));
        assert_eq!(world.submit(&signed.encode()), Ok(Outcome::Done));
        keys.swap(0, 1);
    }
    assert_eq!(world.refused(1, &add_key(1, "one more")), R::Busy);
    assert_eq!(world.run(2, &add_key(2, "mine")), Ok(Outcome::Done));
    world.now += DAY;
    assert_eq!(world.run(1, &add_key(1, "one more")), Ok(Outcome::Done));
}

#[test]
fn a_group_that_is_no_channel_refuses_everything() {
    let mut world = World::five();
    let bytes = world.sign_with(1, &admin(1), &Command::Leave).encode();
    world.state.clear();
    assert_eq!(world.submit(&bytes).unwrap_err().reject, R::Unknown);
}
