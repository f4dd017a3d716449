//! A peer's side of data channels, as a browser has it: it begins the association and opens channels.
#![allow(dead_code, reason = "another test program shares it and uses a part")]

use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event,
    Payload, PayloadProtocolIdentifier as Ppi, StreamEvent, TransportConfig,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use strait_wire::dcep::{BYTES_MAX, Message, Open, Reliability};

pub struct Browser {
    endpoint: Endpoint,
    handle: AssociationHandle,
    pub association: Association,
    pub is_connected: bool,
    pub acknowledged: Vec<u16>,
    pub closed: Vec<u16>,
    pub heard: Vec<(u16, bool, Vec<u8>)>,
    /// It leaves what came where it is.
    pub is_deaf: bool,
}

impl Browser {
    pub fn new() -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), None);
        let to: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        let mut config = ClientConfig::new();
        let transport = TransportConfig::default();
        let transport = transport.with_max_receive_message_size(256 << 10);
        config.transport = Arc::new(transport.with_max_send_message_size(256 << 10));
        let (handle, association) = endpoint.connect(config, to).unwrap();
        Self {
            endpoint,
            handle,
            association,
            is_connected: false,
            acknowledged: Vec::new(),
            closed: Vec::new(),
            heard: Vec::new(),
            is_deaf: false,
        }
    }

    pub fn open(&mut self, id: u16, label: &str, protocol: &str) {
        let open = Open {
            is_ordered: true,
            reliability: Reliability::Full,
            priority: 256,
            label,
            protocol,
        };
        let mut message = [0; BYTES_MAX];
        let len = Message::Open(open).write(&mut message).unwrap();
        self.write(id, &message[..len], Ppi::Dcep);
    }

    pub fn say(&mut self, id: u16, is_text: bool, payload: &[u8]) {
        let ppi = if is_text { Ppi::String } else { Ppi::Binary };
        self.write(id, payload, ppi);
    }

    pub fn write(&mut self, id: u16, payload: &[u8], ppi: Ppi) {
        if self.association.stream(id).is_err() {
            self.association.open_stream(id, Ppi::Unknown).unwrap();
        }
        let mut stream = self.association.stream(id).unwrap();
        stream.write_with_ppi(payload, ppi).unwrap();
    }

    pub fn close(&mut self, id: u16) {
        self.association.stream(id).unwrap().close().unwrap();
    }

    pub fn handle(&mut self, now: Instant, packet: Vec<u8>) {
        let from: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        if let Some((_, DatagramEvent::AssociationEvent(event))) =
            self.endpoint.handle(now, from, None, None, packet.into())
        {
            self.association.handle_event(event);
        }
        self.look();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.association.handle_timeout(now);
        self.look();
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.association.poll_timeout()
    }

    pub fn poll_transmits(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(transmit) =
            self.endpoint.poll_transmit().or_else(|| self.association.poll_transmit(now))
        {
            let Payload::RawEncode(encoded) = transmit.payload else { continue };
            packets.extend(encoded.iter().map(|packet| packet.to_vec()));
        }
        packets
    }

    fn look(&mut self) {
        while let Some(event) = self.association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.association.handle_event(event);
            }
        }
        while let Some(event) = self.association.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::Stream(StreamEvent::Finished { id }) => self.closed.push(id),
                _ => {}
            }
        }
        if !self.is_deaf {
            self.listen();
        }
    }

    pub fn listen(&mut self) {
        for id in self.association.stream_ids() {
            while let Ok(Some(chunks)) = self.association.stream(id).unwrap().read_sctp() {
                let mut payload = vec![0; chunks.len()];
                chunks.read(&mut payload).unwrap();
                match chunks.ppi {
                    Ppi::Dcep => {
                        assert_eq!(Message::parse(&payload), Ok(Message::Ack));
                        self.acknowledged.push(id);
                    }
                    Ppi::StringEmpty | Ppi::BinaryEmpty => {
                        self.heard.push((id, chunks.ppi == Ppi::StringEmpty, Vec::new()));
                    }
                    ppi => self.heard.push((id, ppi == Ppi::String, payload)),
                }
            }
        }
    }
}
