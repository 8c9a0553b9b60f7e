//! A story drawn as one tree.

use super::group::{Event, GroupStory};
use super::{Fate, Story};
use crate::draft::words::and;
use crate::output::{foreign, moment};

/// A line of the tree before its columns are aligned.
struct Line {
    branch: String,
    name: String,
    block: String,
    when: String,
    text: String,
}

impl Story {
    /// The story for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            self.group(group, at + 1 == self.groups.len(), &mut lines);
        }
        let counted =
            if self.first_seen_ms.is_some() { "; times below count from there, by the blocks' clocks" } else { "" };
        format!("{}{counted}\n{}", self.head(), aligned(&lines))
    }

    /// The story in a few lines, without the tree.
    #[must_use]
    pub fn head(&self) -> String {
        let mut text = format!("transaction {}\n{}", self.txid, self.verdict());
        if let Some(reason) = &self.reason {
            text.push_str(&format!("\n  cause: {}\n  fix:   {}", reason.cause, reason.fix));
        }
        for waits in &self.waits_for {
            text.push_str(&format!("\n  waits for {waits}"));
        }
        for (number, mv) in (1..).zip(&self.moves) {
            text.push_str(&format!("\n  {number}. {mv}"));
        }
        if !self.memo.is_empty() {
            text.push_str(&format!("\n  memo: {}", foreign(&self.memo)));
        }
        if let Some(until) = self.valid_until_ms.filter(|_| self.fate == Fate::Undecided) {
            text.push_str(&format!("\n  valid until {}", moment(until)));
        }
        if let Some(seen) = self.first_seen_ms {
            text.push_str(&format!("\n  first seen {}", moment(seen)));
        }
        text
    }

    fn verdict(&self) -> String {
        let many = self.voters.len() > 1;
        let within = self.decided_after_ms.filter(|_| many).map_or_else(String::new, |ms| format!(" within {ms} ms"));
        match (self.fate, &self.reason) {
            (Fate::Committed, _) => {
                let who = if many {
                    format!("{} said yes{within}", and(&self.voters))
                } else {
                    format!("decided by {}", and(&self.voters))
                };
                let applied = if self.applied { "; applied everywhere" } else { "; not applied everywhere yet" };
                format!("COMMITTED: {who}{applied}")
            }
            (Fate::Aborted, Some(reason)) => {
                let word = if many { "ABORTED" } else { "REJECTED" };
                format!("{word}: {} said no{within}: {}; nothing changed", reason.group, reason.code)
            }
            (Fate::Aborted, None) => "ABORTED; nothing changed".to_owned(),
            (Fate::Undecided, _) => "UNDECIDED: no group has said no, and not all have said yes".to_owned(),
        }
    }

    fn group(&self, group: &GroupStory, last: bool, lines: &mut Vec<Line>) {
        let mut about = group.about.join("; ");
        if !group.votes {
            about = "is credited".to_owned();
        }
        if group.stale {
            about.push_str("  (no leader: as one replica has it)");
        }
        lines.push(Line::plain("│"));
        lines.push(Line { text: about, ..Line::named(if last { "└─ " } else { "├─ " }, &group.group) });
        let indent = if last { "   " } else { "│  " };
        if let Some(why) = &group.unanswered {
            lines.push(Line { text: why.clone(), ..Line::named(format!("{indent}└─ "), "no answer") });
        } else if group.events.is_empty() {
            let text = "it has not seen the transaction".to_owned();
            lines.push(Line { text, ..Line::named(format!("{indent}└─ "), "nothing") });
        }
        events(&group.events, indent, lines);
    }
}

impl Line {
    fn plain(branch: impl Into<String>) -> Self {
        Self::named(branch, "")
    }

    fn named(branch: impl Into<String>, name: &str) -> Self {
        Self {
            branch: branch.into(),
            name: name.to_owned(),
            block: String::new(),
            when: String::new(),
            text: String::new(),
        }
    }
}

fn events(list: &[Event], indent: &str, lines: &mut Vec<Line>) {
    for (at, event) in list.iter().enumerate() {
        let last = at + 1 == list.len();
        let name = match event.yes {
            Some(true) if event.kind != "execute" => format!("{} YES", event.kind),
            Some(false) if event.kind != "execute" => format!("{} NO", event.kind),
            _ => event.kind.to_owned(),
        };
        let inner = format!("{indent}{}", if last { "   " } else { "│  " });
        lines.push(Line {
            block: event.height.map(|height| format!("block {height}")).unwrap_or_default(),
            when: event.after_ms.map(|after| format!("{after:+} ms")).unwrap_or_default(),
            text: event.text.clone(),
            ..Line::named(format!("{indent}{}", if last { "└─ " } else { "├─ " }), &name)
        });
        if let Some(reason) = &event.reason {
            let bar = if event.with.is_empty() { "   " } else { "│  " };
            for text in [format!("cause: {}", reason.cause), format!("fix:   {}", reason.fix)] {
                lines.push(Line { text, ..Line::plain(format!("{inner}{bar}")) });
            }
        }
        events(&event.with, &inner, lines);
    }
}

/// Columns of equal width; blanks at the end of a line are left out.
fn aligned(lines: &[Line]) -> String {
    let chars = |text: &str| text.chars().count();
    let first = lines.iter().map(|line| chars(&line.branch) + chars(&line.name)).max().unwrap_or(0);
    let block = lines.iter().map(|line| chars(&line.block)).max().unwrap_or(0);
    let when = lines.iter().map(|line| chars(&line.when)).max().unwrap_or(0);
    let one = |line: &Line| {
        let name = format!("{}{}", line.branch, line.name);
        format!("{name:<first$}  {:<block$}  {:>when$}  {}", line.block, line.when, line.text).trim_end().to_owned()
    };
    lines.iter().map(one).collect::<Vec<_>>().join("\n")
}
