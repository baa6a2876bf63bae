//! Pure: what is printed of a configuration that is in order, and of what may not be meant in it.

use super::render::{Align, Column, Output, envelope, table};
use crate::capture::select::own::Warning;
use crate::status::words::plural;

pub(super) struct Checked<'a> {
    pub(super) hub: &'a str,
    pub(super) pair: &'a str,
    /// None: the hub was not asked.
    pub(super) warnings: Option<Vec<Warning>>,
}

const COLUMNS: [Column; 3] =
    [("KEY", Align::Left), ("WARNING", Align::Left), ("HINT", Align::Left)];

pub(super) fn checked(checked: &Checked<'_>, output: Output) -> Result<String, serde_json::Error> {
    let Checked { hub, pair, warnings } = checked;
    if output == Output::Json {
        let body = serde_json::json!({"hub": hub, "pair": pair, "warnings": warnings});
        return envelope("ConfigCheck", body);
    }
    let ok = format!("ok: hub {hub} of the pair {pair}");
    let warnings = match warnings.as_deref() {
        None | Some([]) => return Ok(format!("{ok}\n")),
        Some(warnings) => warnings,
    };
    let rows = warnings
        .iter()
        .map(|Warning { key, what, hint }| vec![key.clone(), what.clone(), hint.clone()]);
    let number = plural(warnings.len(), "warning", "warnings");
    Ok(format!("{ok}, {number}\n\n{}", table(&COLUMNS, rows)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_stand_below_what_is_in_order() {
        let shown = |warnings: Option<Vec<Warning>>, output| {
            checked(&Checked { hub: "eu-1", pair: "eu", warnings }, output).unwrap()
        };
        assert_eq!(shown(None, Output::Table), "ok: hub eu-1 of the pair eu\n");
        assert_eq!(shown(Some(vec![]), Output::Table), "ok: hub eu-1 of the pair eu\n");
        let warning = Warning {
            key: "sets.resources.include[0]".to_owned(),
            what: "this hub serves no kind Polcy".to_owned(),
            hint: "did you mean Policy?".to_owned(),
        };
        assert_eq!(
            shown(Some(vec![warning.clone()]), Output::Table),
            "\
ok: hub eu-1 of the pair eu, 1 warning

KEY                        WARNING                        HINT
sets.resources.include[0]  this hub serves no kind Polcy  did you mean Policy?
"
        );
        let json: serde_json::Value =
            serde_json::from_str(&shown(Some(vec![warning]), Output::Json)).unwrap();
        assert_eq!(json["kind"], "ConfigCheck");
        assert_eq!(json["warnings"][0]["hint"], "did you mean Policy?");
    }
}
