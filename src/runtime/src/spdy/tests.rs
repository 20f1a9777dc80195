//! The codec against itself, by properties, and the connection against a client made of the codec.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{
    connection,
    frame::{self, Frame},
    headers::{self, Decoder, Encoder, Headers},
};

#[test]
fn the_dictionary_is_spdy_3s() {
    let dictionary = headers::dictionary();
    assert_eq!(dictionary.len(), 1423);
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in dictionary {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    assert_eq!(b << 16 | a, headers::DICTIONARY_ID);
}

fn some_headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z-]{1,20}", "[ -~]{0,200}"), 0..20)
}

fn some_frame() -> impl Strategy<Value = Frame> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let id = || 1_u32..0x7fff_ffff;
    prop_oneof![
        (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::SynStream { stream, fin, block }),
        (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::SynReply { stream, fin, block }),
        (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::Headers { stream, fin, block }),
        (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, data)| Frame::Data { stream, fin, data }),
        (id(), 0_u32..12).prop_map(|(stream, status)| Frame::RstStream { stream, status }),
        any::<u32>().prop_map(Frame::Ping),
        id().prop_map(|last| Frame::GoAway { last }),
    ]
}

proptest! {
    #[test]
    fn header_blocks_come_back(blocks in prop::collection::vec(some_headers(), 1..8)) {
        let (mut encoder, mut decoder) = (Encoder::new().expect("an encoder"), Decoder::default());
        for block in blocks {
            let bytes = encoder.encode(&block).expect("encoded");
            prop_assert_eq!(decoder.decode(&bytes).expect("decoded"), block);
        }
    }

    #[test]
    fn frames_come_back_however_they_are_cut(frames in prop::collection::vec(some_frame(), 1..10), cut in 1_usize..50) {
        let bytes: Vec<u8> = frames.iter().flat_map(|f| frame::encode(f).to_vec()).collect();
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = frame::decode(&mut buffer).expect("frames") {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn rubbish_is_an_error_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Decoder::default().decode(&bytes);
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = frame::decode(&mut buffer) {}
    }
}

#[tokio::test]
async fn a_stream_both_ways() {
    let (mut client, server) = tokio::io::duplex(64 << 10);
    let (sender, mut streams) = mpsc::channel(4);
    let serving = tokio::spawn(connection::serve(server, sender));
    let block = Encoder::new().expect("an encoder").encode(&vec![("streamtype".into(), "data".into())]).expect("encoded");
    for sent in [
        Frame::SynStream { stream: 1, fin: false, block: block.into() },
        Frame::Ping(7),
        Frame::Data { stream: 1, fin: false, data: Bytes::from_static(b"in") },
        Frame::Data { stream: 1, fin: true, data: Bytes::new() },
    ] {
        client.write_all(&frame::encode(&sent)).await.expect("sent");
    }
    let mut stream = streams.recv().await.expect("a stream");
    assert_eq!(stream.header("streamtype"), Some("data"));
    assert_eq!(stream.data.recv().await.as_deref(), Some(&b"in"[..]));
    assert_eq!(stream.data.recv().await, None);
    stream.sender.send(Bytes::from_static(b"out")).await.expect("sent");
    stream.sender.finish().await.expect("finished");
    drop((stream, streams));
    let mut buffer = BytesMut::new();
    while client.read_buf(&mut buffer).await.expect("read") > 0 {}
    let mut got = Vec::new();
    while let Some(frame) = frame::decode(&mut buffer).expect("frames") {
        got.push(frame);
    }
    assert!(matches!(got[0], Frame::SynReply { stream: 1, .. }), "{got:?}");
    assert_eq!(got[1], Frame::Ping(7));
    assert_eq!(got[2], Frame::Data { stream: 1, fin: false, data: Bytes::from_static(b"out") });
    assert_eq!(got[3], Frame::Data { stream: 1, fin: true, data: Bytes::new() });
    serving.await.expect("joined").expect("served");
}
