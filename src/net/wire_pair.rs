//! Two stacks and a cable between them, for tests: time is a number, and the cable can lose frames or be cut.

use super::{
    connection::{ConnectionId, Settings},
    stack::{Port, Stack},
};
use smoltcp::{
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
    wire::Ipv4Address,
};
use std::{cell::RefCell, collections::VecDeque, rc::Rc};

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of the cable.
pub struct End {
    mac: [u8; 6],
    mtu: usize,
    incoming: Frames,
    outgoing: Frames,
    cut: Rc<RefCell<bool>>,
    /// Every so many'th frame that this end sends is lost; 0: none.
    pub lose_every: u32,
    sent: u32,
    /// Not 0: some frames are altered on the way, from this seed; checksums are not looked at.
    noise: Rc<RefCell<u64>>,
    /// Frames that come in between two flushes, at most.
    slice: usize,
    came: usize,
    /// Bytes of the frames that this end sent.
    pub bytes: usize,
}

pub struct Token<'a>(&'a mut End);
pub struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Token<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        let end = self.0;
        end.sent += 1;
        end.bytes += length;
        let lost = end.lose_every != 0 && end.sent.is_multiple_of(end.lose_every);
        disturb(&mut frame, &mut end.noise.borrow_mut());
        if !lost && !*end.cut.borrow() {
            end.outgoing.borrow_mut().push_back(frame);
        }
        result
    }
}

/// Alters one byte of the headers of every fourth frame or so.
fn disturb(frame: &mut [u8], noise: &mut u64) {
    if *noise == 0 {
        return;
    }
    // xorshift64
    *noise ^= *noise << 13;
    *noise ^= *noise >> 7;
    *noise ^= *noise << 17;
    let [kind, place, value, ..] = noise.to_le_bytes();
    if kind % 4 == 0
        && let Some(byte) = frame.get_mut(usize::from(place % 70))
    {
        *byte = value;
    }
}

impl Device for End {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Token<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Token<'_>)> {
        if self.came >= self.slice {
            return None;
        }
        let frame = self.incoming.borrow_mut().pop_front()?;
        self.came += 1;
        Some((Frame(frame), Token(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Token<'_>> {
        let room = self.outgoing.borrow().len() < 256;
        room.then_some(Token(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        if *self.noise.borrow() != 0 {
            capabilities.checksum = ChecksumCapabilities::ignored();
        }
        capabilities
    }
}

impl Port for End {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn flush(&mut self) {
        self.came = 0;
    }
    fn arm(&mut self) -> bool {
        self.incoming.borrow().is_empty()
    }
    fn disarm(&mut self) {}
    fn is_broken(&self) -> bool {
        false
    }
}

/// Source (10.0.0.1) and destination (10.0.0.2).
pub struct Pair {
    pub source: Stack<End>,
    pub destination: Stack<End>,
    pub now: u64,
    cut: Rc<RefCell<bool>>,
    noise: Rc<RefCell<u64>>,
}

pub const DESTINATION: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

impl Pair {
    pub fn new(mtu: usize, lose_every: u32) -> Self {
        Self::with(mtu, lose_every, usize::MAX, 0)
    }

    /// A cable that hands out few frames at a time, so that acknowledgments come in the middle of a flight.
    pub fn sliced(mtu: usize, slice: usize) -> Self {
        Self::with(mtu, 0, slice, 0)
    }

    /// A cable that alters frames, until [`Pair::calm`].
    pub fn noisy(seed: u64) -> Self {
        Self::with(1500, 0, usize::MAX, seed.max(1))
    }

    /// From now on no frame is altered.
    pub fn calm(&mut self) {
        *self.noise.borrow_mut() = 0;
    }

    fn with(mtu: usize, lose_every: u32, slice: usize, noise: u64) -> Self {
        let noise = Rc::new(RefCell::new(noise));
        let (there, back, cut) = (Frames::default(), Frames::default(), Rc::new(RefCell::new(false)));
        let end = |last, incoming: &Frames, outgoing: &Frames| {
            let end = End {
                mac: [2, 0, 0, 0, 0, last],
                mtu,
                incoming: incoming.clone(),
                outgoing: outgoing.clone(),
                cut: cut.clone(),
                lose_every,
                sent: 0,
                noise: noise.clone(),
                slice,
                came: 0,
                bytes: 0,
            };
            Stack::new(end, Settings::new(Ipv4Address::new(10, 0, 0, last), 24, u64::from(last)))
        };
        Self { source: end(1, &back, &there), destination: end(2, &there, &back), now: 0, cut, noise }
    }

    /// Moves both on by `micros`.
    pub fn step(&mut self, micros: u64) {
        self.now += micros;
        self.source.poll(self.now);
        self.destination.poll(self.now);
    }

    /// Steps of a millisecond until `done` says so; false if it does not for `millis`.
    pub fn run(&mut self, millis: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        (0..millis).any(|_| {
            self.step(1000);
            done(self)
        })
    }

    /// From now on every frame is lost.
    pub fn cut(&mut self) {
        *self.cut.borrow_mut() = true;
    }

    /// A connection from source to destination on `port`, which must listen.
    pub fn open(&mut self, port: u16) -> (ConnectionId, ConnectionId) {
        let source = self.source.connect(DESTINATION, port).unwrap();
        let mut destination = None;
        assert!(self.run(5000, |pair| {
            destination = destination.or_else(|| pair.destination.accept(port));
            destination.is_some()
        }));
        (source, destination.unwrap())
    }
}
