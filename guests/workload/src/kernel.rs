//! The kernel's own account of processes: the connector tells each fork and each exit (Linux, `cn_proc.h`).

use netlink_sys::{Socket, SocketAddr};
use std::io;

const NETLINK_CONNECTOR: isize = 11;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const NLMSG_DONE: u16 = 3;
const LISTEN: u32 = 1;
const FORK: u32 = 1;
const EXIT: u32 = 0x8000_0000;

/// Bytes of `struct nlmsghdr` and `struct cn_msg`.
const HEADERS: usize = 16 + 20;
/// Where the fields of an event begin in `struct proc_event`, after its kind, CPU and time.
const DATA: usize = 16;
/// Every thread of the kernel is a child of `kthreadd`.
const KTHREADD: u32 = 2;
/// What the kernel may keep for us, in bytes: some 500 events.
const BUFFER: i32 = 208 << 10;

/// What happened since the boot, or since an earlier account.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Processes forked.
    pub births: u64,
    /// Processes that exited.
    pub deaths: u64,
    /// Threads that processes started.
    pub threads: u64,
    /// Threads that the kernel started for itself.
    pub kernel_threads: u64,
    /// Events that did not come.
    pub lost: u64,
}

impl Account {
    /// What happened since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            births: self.births - before.births,
            deaths: self.deaths - before.deaths,
            threads: self.threads - before.threads,
            kernel_threads: self.kernel_threads - before.kernel_threads,
            lost: self.lost - before.lost,
        }
    }

    /// Takes one message of the connector in. Others are none of ours.
    fn take(&mut self, message: &[u8]) {
        let Some(event) = message.get(HEADERS..) else { return };
        let word = |at: usize| event.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let field = |number: usize| word(DATA + 4 * number).unwrap_or_default();
        match word(0) {
            // Parent's pid and tgid, child's pid and tgid.
            Some(FORK) if field(2) != field(3) => self.threads += 1,
            Some(FORK) if field(0) == KTHREADD => self.kernel_threads += 1,
            Some(FORK) => self.births += 1,
            // Pid, tgid, code, signal, parent's pid.
            Some(EXIT) if field(0) == field(1) && field(4) != KTHREADD => self.deaths += 1,
            _ => {}
        }
    }
}

/// Listens to the connector.
pub struct Kernel {
    socket: Socket,
    account: Account,
    message: Vec<u8>,
}

impl Kernel {
    /// Listens from now on. Needs the right to administer the network, and a kernel with `CONFIG_PROC_EVENTS`.
    pub fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_CONNECTOR)?;
        socket.bind(&SocketAddr::new(0, CN_IDX_PROC))?;
        socket.set_rx_buf_sz(BUFFER)?;
        socket.set_non_blocking(true)?;
        socket.send_to(&subscription(), &SocketAddr::new(0, 0), 0)?;
        Ok(Self { socket, account: Account::default(), message: Vec::with_capacity(256) })
    }

    /// The account, with all that the kernel has told by now.
    pub fn account(&mut self) -> Account {
        loop {
            self.message.clear();
            match self.socket.recv(&mut self.message, 0) {
                Ok(_) => self.account.take(&self.message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.account,
                // ENOBUFS: the kernel had no room for some.
                Err(_) => self.account.lost += 1,
            }
        }
    }
}

/// `struct nlmsghdr`, `struct cn_msg`, `enum proc_cn_mcast_op`.
fn subscription() -> Vec<u8> {
    let length = HEADERS + 4;
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
    message.extend(NLMSG_DONE.to_ne_bytes());
    message.resize(16, 0); // flags, sequence, port
    message.extend(CN_IDX_PROC.to_ne_bytes());
    message.extend(CN_VAL_PROC.to_ne_bytes());
    message.resize(32, 0); // sequence, acknowledgement
    message.extend(4u16.to_ne_bytes());
    message.resize(HEADERS, 0); // flags
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// Forks since the boot, of processes, threads and threads of the kernel: a second account, from `/proc/stat`.
pub fn forks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("processes ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u32, fields: &[u32]) -> Vec<u8> {
        let mut message = vec![0; HEADERS];
        message.extend(kind.to_ne_bytes());
        message.resize(HEADERS + DATA, 0);
        message.extend(fields.iter().flat_map(|field| field.to_ne_bytes()));
        message
    }

    #[test]
    fn processes_are_told_from_threads_and_from_the_kernels_own() {
        let mut account = Account::default();
        for (kind, fields) in [
            (FORK, vec![1, 1, 50, 50]),
            (FORK, vec![50, 50, 51, 50]),
            (FORK, vec![2, 2, 52, 52]),
            (2, vec![50, 50]),
            (EXIT, vec![51, 50, 0, 0, 1, 1]),
            (EXIT, vec![50, 50, 0, 17, 1, 1]),
            (EXIT, vec![52, 52, 0, 17, 2, 2]),
            (0, vec![]),
        ] {
            account.take(&event(kind, &fields));
        }
        account.take(&[]);
        assert_eq!(account, Account { births: 1, deaths: 1, threads: 1, kernel_threads: 1, lost: 0 });
    }

    #[test]
    fn the_subscription_is_as_long_as_it_says() {
        let message = subscription();
        assert_eq!((message.len(), message[0]), (40, 40));
    }
}
