//! Cases of bodies: what is read, what is refused.

use proptest::prelude::*;
use serde_json::json as value;

use super::*;

#[test]
fn json_bodies() {
    let cases = [
        (r#"{"a":1,"b":[true,null,"x",1.5]}"#, value!({"a": 1, "b": [true, null, "x", 1.5]}), vec![]),
        (r#"{"a":{"b":1,"b":2},"c":[{"d":1,"d":3}]}"#, value!({"a": {"b": 2}, "c": [{"d": 3}]}), vec!["a.b", "c[0].d"]),
        ("18446744073709551615", value!(u64::MAX), vec![]),
    ];
    for (body, expected, duplicates) in cases {
        let got = json(body.as_bytes()).unwrap();
        assert_eq!(
            (got.value, got.duplicates),
            (expected, duplicates.into_iter().map(|path| Duplicate::Path(path.to_owned())).collect()),
            "{body}"
        );
    }
    for body in ["", "{", "{}x", r#"{"a":01}"#, "{\"a\":\"\u{1}\"}", "nul"] {
        assert!(matches!(json(body.as_bytes()), Err(DecodeError::Json(_))), "{body}");
    }
}

#[test]
fn bounds_hold() {
    let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
    assert!(matches!(json(deep.as_bytes()), Err(DecodeError::TooDeep { .. })));
    assert!(matches!(yaml(deep.as_bytes()), Err(DecodeError::TooDeep { .. })));
    assert!(matches!(json(&vec![b' '; MAX_BODY_BYTES + 1]), Err(DecodeError::TooLarge { .. })));
    let many = format!("[{}{{}}]", "{},".repeat(MAX_OBJECTS));
    assert!(matches!(json(many.as_bytes()), Err(DecodeError::TooMany { .. })));
    assert!(matches!(yaml(many.as_bytes()), Err(DecodeError::TooMany { .. })));
    let aliases = format!("[&a {{x: y}}, {}*a]", "*a,".repeat(MAX_OBJECTS));
    assert!(matches!(yaml(aliases.as_bytes()), Err(DecodeError::TooMany { .. })));
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..9 {
        let one = format!("*a{},", i - 1).repeat(10);
        bomb += &format!("a{i}: &a{i} [{one}]\n");
    }
    assert!(matches!(yaml(bomb.as_bytes()), Err(DecodeError::Yaml(_))));
}

#[test]
fn many_anchors_are_found_in_time() {
    let anchors: String = (0..50_000).map(|i| format!("&a{i} x,")).collect();
    let body = format!("[{anchors}{}]", "*a0,".repeat(50_000));
    let read = || assert_eq!(yaml(body.as_bytes()).unwrap().value.as_array().map(Vec::len), Some(100_000));
    assert!(crate::effort::seconds(read) < 20);
}

#[test]
fn yaml_bodies() {
    let cases = [
        (
            "a: y\nb: 'y'\nc: off\nd: 0644\ne: 0x1F\nf: 1_000\ng: 1.5e3\nh: ~\n",
            value!({"a": true, "b": "y", "c": false, "d": 420, "e": 31, "f": 1000, "g": 1500.0, "h": null}),
        ),
        ("a: 1\n---\nb: 2\n", value!({"a": 1})),
        ("---\n# only a comment\n", value!(null)),
        ("1: a\ntrue: b\n", value!({"1": "a", "true": "b"})),
        ("base: &b {x: 1}\nmore:\n  <<: *b\n  z: 2\n", value!({"base": {"x": 1}, "more": {"x": 1, "z": 2}})),
        (
            "a: 10.42.0.1\nb: 1.2.3\nc: 2001-01-01\nd: 100m\ne: 1e3x\n",
            value!({"a": "10.42.0.1", "b": "1.2.3", "c": "2001-01-01", "d": "100m", "e": "1e3x"}),
        ),
        ("a: |\n  x\n  y\nb: >-\n  x\n  y\n", value!({"a": "x\ny\n", "b": "x y"})),
        ("{\"a\": [1, \"2\"]}", value!({"a": [1, "2"]})),
        ("a: !!str 1\n", value!({"a": "1"})),
    ];
    for (body, expected) in cases {
        assert_eq!(yaml(body.as_bytes()).unwrap().value, expected, "{body}");
    }
    assert_eq!(yaml(b"\na:\n- b: 1\n  b: 2\n").unwrap().duplicates, [Duplicate::Line { line: 4, key: "b".to_owned() }]);
    assert!(yaml(b"a: [").is_err());
    assert!(yaml(b"a: *none").is_err());
}

proptest! {
    #[test]
    fn nothing_panics_and_yaml_reads_json(text in "\\PC{0,60}", flag: bool, number: i64, word in "[a-z]{0,8}") {
        let _ = (json(text.as_bytes()), yaml(text.as_bytes()));
        let original = value!({"flag": flag, "number": number, "word": word, "list": [text]});
        let body = original.to_string();
        prop_assert_eq!(&json(body.as_bytes()).unwrap().value, &original);
        prop_assert_eq!(yaml(body.as_bytes()).unwrap().value, original);
    }
}

/// A reader that is off by the last digit makes every write of the number another change.
#[test]
fn a_number_is_read_to_its_last_digit() {
    for text in ["1.844674407344675e73", "-9.223372036854775e18", "0.1", "5e-324", "1.7976931348623157e308"] {
        let number: f64 = text.parse().unwrap();
        let read = json(format!(r#"{{"n":{text}}}"#).as_bytes()).unwrap();
        assert_eq!(read.value["n"].as_f64().map(f64::to_bits), Some(number.to_bits()), "{text}");
        assert_eq!(json(read.value.to_string().as_bytes()).unwrap().value, read.value, "{text}");
    }
}
