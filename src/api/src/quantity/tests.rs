//! Cases of quantities.

use proptest::prelude::*;

use super::*;

fn check(text: &str, canonical: &str) {
    let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
    assert_eq!(quantity.to_string(), canonical, "{text}");
    assert_eq!(canonical.parse::<Quantity>(), Ok(quantity), "{canonical} reads back");
}

#[test]
fn text_becomes_canonical() {
    for (text, canonical) in [
        ("0", "0"),
        ("0Gi", "0"),
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("100Ki", "100Ki"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("12E", "12E"),
        ("12e6", "12e6"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("1200e3", "1200e3"),
        ("0.1m", "100u"),
        ("0.0000000001", "1n"),
        ("-0.5", "-500m"),
        ("+5", "5"),
        (".5", "500m"),
        ("5.", "5"),
        ("1.1Ki", "1126400m"),
        ("1000000k", "1G"),
    ] {
        check(text, canonical);
    }
}

#[test]
fn what_is_no_quantity_is_refused() {
    use ParseQuantityError::{Format, Suffix};
    for (text, error) in [
        ("", Format),
        ("abc", Format),
        ("1.2.3", Format),
        ("--1", Format),
        ("1 Gi", Format),
        ("1Kx", Format),
        ("1ki", Suffix),
        ("1mm", Suffix),
        ("1e", Suffix),
        (".", Format),
    ] {
        assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
    }
}

#[test]
fn order_is_that_of_the_value() {
    let parse = |s: &str| s.parse::<Quantity>().expect("a quantity");
    assert_eq!(parse("1Gi"), parse("1073741824"));
    assert!(parse("1G") < parse("1Gi"));
    assert!(parse("-1") < parse("0"));
    assert_eq!(parse("1.0000001").millis(), 1001);
    assert_eq!(parse("100m").plus(parse("900m")).to_string(), "1");
    assert_eq!(parse("9999999999E").units(), i64::MAX);
}

proptest! {
    #[test]
    fn printing_and_reading_is_the_same_value(units in any::<i64>(), millis in -1_000_000_000i64..1_000_000_000) {
        for q in [Quantity::from_millis(millis), Quantity::from_bytes(units / 4), Quantity::from_units(units / 4)] {
            prop_assert_eq!(q.to_string().parse::<Quantity>(), Ok(q));
        }
    }

    #[test]
    fn no_text_panics(text in "[-+0-9.eEinumkKMGTPi ]{0,40}") {
        let _ = text.parse::<Quantity>();
    }
}
