//! Countries, as the rules for radio know them.

/// Those that wireless-regdb has rules for (2026.09.03).
const WITH_RULES: &str = "AD AE AF AI AL AM AN AR AS AT AU AW AZ BA BB BD BE BF BG BH BL BM BN BO BR BS BT BW BY BZ CA CF CH CI CL CN CO CR CU \
                          CX CY CZ DE DK DM DO DZ EC EE EG ES ET FI FM FO FR GB GD GE GF GH GI GL GP GR GT GU GY HK HN HR HT HU ID IE IL IM \
                          IN IR IS IT JM JO JP KE KH KN KP KR KW KY KZ LB LC LI LK LS LT LU LV MA MC MD ME MF MH MK MN MO MP MQ MR MT MU MV \
                          MW MX MY NA NG NI NL NO NP NZ OM PA PE PF PG PH PK PL PM PR PT PW PY QA RE RO RS RU RW SA SE SG SI SK SM SN SR SV \
                          SX SY TC TD TG TH TN TR TT TW TZ UA UG US UY UZ VA VC VE VI VN VU WF WS YE YT ZA ZW";

/// The others of ISO 3166-1.
const WITHOUT_RULES: &str = "AG AO AQ AX BI BJ BQ BV CC CD CG CK CM CV CW DJ EH ER FJ FK GA GG GM GN GQ GS GW HM IO IQ JE KG KI KM LA LR LY MG \
                             ML MM MS MZ NC NE NF NR NU PN PS SB SC SD SH SJ SL SO SS ST SZ TF TJ TK TL TM TO TV UM VG ZM";

/// What people write for a country, and its code.
const MEANT: &[(&str, &str)] = &[
    ("UK", "GB"),
    ("EN", "GB"),
    ("EL", "GR"),
    ("JA", "JP"),
    ("DD", "DE"),
    ("SU", "RU"),
    ("CS", "RS"),
    ("YU", "RS"),
    ("TP", "TL"),
    ("ZR", "CD"),
    ("BU", "MM"),
];

/// The rules that hold in every country.
pub const WORLD: &str = "00";

/// Two letters, or the world.
pub(crate) fn is_code(text: &str) -> bool {
    text == WORLD || (text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()))
}

/// Why two letters are no country, and what was meant.
pub(crate) fn slip(text: &str) -> Option<String> {
    let code = text.to_ascii_uppercase();
    if code == WORLD || is_in(WITH_RULES, &code) || is_in(WITHOUT_RULES, &code) {
        return None;
    }
    Some(match MEANT.iter().find(|(given, _)| *given == code) {
        Some((_, meant)) => format!("is \"{text}\", the code of no country; write \"{meant}\""),
        None if code == "EU" => format!("is \"{text}\", which is no country; write the one that the device is in"),
        None => format!("is \"{text}\", the code of no country in ISO 3166-1"),
    })
}

/// True for a country without rules of its own, for which those of the world hold.
pub(crate) fn has_no_rules(text: &str) -> bool {
    is_in(WITHOUT_RULES, &text.to_ascii_uppercase())
}

fn is_in(list: &str, code: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_those_of_iso_3166() {
        for good in ["DE", "de", "Gb", "US", "00", "FJ", "AN"] {
            assert!(is_code(good) && slip(good).is_none(), "{good}");
        }
        for (bad, wanted) in
            [("UK", "\"GB\""), ("uk", "\"GB\""), ("EL", "\"GR\""), ("EU", "the one"), ("XX", "ISO"), ("AA", "ISO")]
        {
            assert!(slip(bad).unwrap().contains(wanted), "{bad}");
        }
        for bad in ["", "D", "DEU", "0", "01", "D1", "Ü"] {
            assert!(!is_code(bad), "{bad}");
        }
        assert!(has_no_rules("fj") && !has_no_rules("DE") && !has_no_rules(WORLD));
        // 249 countries, and one that was.
        assert_eq!(WITH_RULES.split_ascii_whitespace().count() + WITHOUT_RULES.split_ascii_whitespace().count(), 250);
        assert!(MEANT.iter().all(|(given, meant)| slip(given).is_some() && slip(meant).is_none()));
    }
}
