//! Every short journal over an alphabet of records, read by the model's walk and by the product's.

use super::config::{Budget, Config, Weakness};
use super::product;
use super::record::{Kind, Record, SLOTS};
use super::walk;
use understudy::repository::chain::View;

/// Records behind `Init`, `Term` and `Open` of hub a.
const DEPTH: usize = 4;

const CONFIG: Config =
    Config { hub_of: [0, 1, 1], processes: 2, budget: Budget::NONE, weakness: Weakness::None };

/// Reads them all; returns how many there were.
pub(crate) fn read_all() -> usize {
    let mut log = [Record::NOTHING; SLOTS];
    let mut model = walk::View::EMPTY;
    let mut view = View::default();
    let start = [(Kind::Init, 0, 0), (Kind::Term, 1, 1), (Kind::Open, 1, 2)];
    for (slot, (kind, epoch, prev)) in (1..).zip(start) {
        log[slot] = Record { kind, epoch, prev, ..Record::NOTHING };
        read(&log, slot, &mut model, &mut view);
    }
    extend(log, &model, &view, DEPTH)
}

fn extend(log: [Record; SLOTS], model: &walk::View, view: &View, depth: usize) -> usize {
    if depth == 0 {
        return 1;
    }
    let slot = usize::from(model.head) + 1;
    let journals = letters(model).into_iter().map(|letter| {
        let (mut log, mut model, mut view) = (log, *model, view.clone());
        log[slot] = letter;
        read(&log, slot, &mut model, &mut view);
        extend(log, &model, &view, depth - 1)
    });
    journals.sum()
}

fn read(log: &[Record; SLOTS], slot: usize, model: &mut walk::View, view: &mut View) {
    walk::step(&CONFIG, model, &log[slot], true);
    product::step(&CONFIG, log, slot, true, view);
    product::agree(log, model, view);
}

/// What may stand in the next slot, valid or not.
fn letters(view: &walk::View) -> Vec<Record> {
    let chained = Record { prev: view.last, rekeyed: view.rekeyed, ..Record::NOTHING };
    let mut letters = vec![
        Record::JUNK,
        Record { kind: Kind::Init, ..chained },
        Record { kind: Kind::Open, epoch: view.epoch, prev: view.last - 1, ..chained },
    ];
    for by in [0, 1] {
        for epoch in [view.epoch, view.epoch + 1] {
            let record = Record { epoch, by, ..chained };
            letters.push(Record { kind: Kind::Term, ..record });
            if view.junk != 0 {
                letters.push(Record { kind: Kind::Term, names: view.junk, ..record });
                letters.push(Record {
                    kind: Kind::Term,
                    names: view.junk & (view.junk - 1),
                    ..record
                });
            }
        }
        let record = Record { by, epoch: view.epoch, incarnation: view.incarnation, ..chained };
        letters.push(Record { kind: Kind::Open, ..record });
        letters.push(Record { kind: Kind::Activated, ..record });
        letters.push(Record { kind: Kind::Commit, ..record });
        letters.push(Record { kind: Kind::Commit, suspect: true, ..record });
        letters.push(Record { kind: Kind::Commit, incarnation: 3, ..record });
        letters.push(Record { kind: Kind::Commit, epoch: 1, ..record });
        letters.push(Record { kind: Kind::Commit, rekeyed: !view.rekeyed, ..record });
        letters.push(Record { kind: Kind::Rekey, ..record });
        letters.push(Record { kind: Kind::Handover, ..record });
    }
    letters
}
