//! Names to vetted addresses.
//!
//! ureq asks for **every** request, also when it then takes a pooled connection, so the answer is kept for a few
//! seconds; and ureq's own resolver spawns a thread each time, ours looks the name up in the calling thread. The
//! price: a lookup that hangs cannot be interrupted. It occupies its thread for as long as the system's resolver takes
//! (`timeout` and `attempts` in resolv.conf, 10 s by default), and ends as a timeout if that was too long.
//!
//! One refused address refuses the whole name: a name that points to a public and a private address is either an
//! attack or a mistake. A resolver belongs to one origin under one policy, so a new policy starts with no kept answers.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use ipnet::IpNet;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use url::{Host, Url};

use super::address;
use super::failure::{Failure, is_our_own};
use crate::outcome::Fault;

/// How long a vetted answer is used: long enough for a burst, short enough for a failover by DNS.
const KEEP: Duration = Duration::from_secs(5);
/// ureq's list of addresses is this long.
const MAX_ADDRESSES: usize = 16;

/// The vetted addresses of one origin.
pub(super) struct Vetted {
    url: Url,
    /// Connect there instead. The proxy looks names up itself, and it is the administrator's to choose.
    proxy: Option<Url>,
    allow: Vec<IpNet>,
    kept: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Vetted {
    pub(super) fn new(url: Url, proxy: Option<Url>, allow: Vec<IpNet>) -> Self {
        Self { url, proxy, allow, kept: Mutex::new(None) }
    }

    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        if let Some((since, addresses)) = &*self.kept.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() < KEEP
        {
            return Ok(addresses.clone());
        }
        let found = match &self.proxy {
            Some(proxy) => {
                self.vet_literal()?;
                lookup(proxy)?
            }
            None => lookup(&self.url)?,
        };
        for address in &found {
            if self.proxy.is_none() {
                self.vet(address.ip())?;
            }
        }
        let kept = (Instant::now(), found.clone());
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(found)
    }

    fn vet(&self, ip: IpAddr) -> Result<(), Failure> {
        address::permitted(ip, &self.allow).map_err(|why| {
            Failure::new(Fault::Egress, format!("{ip} is {why}, which is not open to webhooks"))
        })
    }

    /// Behind a proxy names are the proxy's business; an address in the URL itself is not.
    fn vet_literal(&self) -> Result<(), Failure> {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => self.vet(ip.into()),
            Some(Host::Ipv6(ip)) => self.vet(ip.into()),
            _ => Ok(()),
        }
    }
}

impl Resolver for Vetted {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let start = Instant::now();
        let found = self.addresses()?;
        if start.elapsed() >= *timeout.after {
            return Err(ureq::Error::Timeout(timeout.reason));
        }
        let mut addresses = self.empty();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

impl fmt::Debug for Vetted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vetted").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// Asks the system. Addresses in the URL need no lookup.
fn lookup(url: &Url) -> Result<Vec<SocketAddr>, Failure> {
    let found = url.socket_addrs(|| None).map_err(|error| {
        let fault = if is_our_own(&error) || is_resolver_down(&error) { Fault::Internal } else { Fault::Dns };
        Failure::new(fault, error.to_string())
    })?;
    if found.is_empty() {
        return Err(Failure::new(Fault::Dns, "the name has no address"));
    }
    Ok(found)
}

/// EAI_AGAIN: no name server answered. The standard library keeps only the text of that code, glibc's in English
/// (the worker runs with `lc_messages = C`); in another language the class is `dns`, the lesser mistake.
fn is_resolver_down(error: &io::Error) -> bool {
    error.raw_os_error().is_some() || error.to_string().contains("Temporary failure in name resolution")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vetted(url: &str, allow: &[&str]) -> Result<Vec<SocketAddr>, Failure> {
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        Vetted::new(Url::parse(url).unwrap(), None, allow).addresses()
    }

    #[test]
    fn a_refused_address_names_its_class() {
        let failure = vetted("https://10.1.2.3/", &[]).unwrap_err();
        assert_eq!(failure.fault, Fault::Egress);
        assert_eq!(failure.message, "10.1.2.3 is a private address, which is not open to webhooks");
    }

    #[test]
    fn one_refused_address_refuses_the_name() {
        // localhost resolves to 127.0.0.1, ::1 or both; whichever is missing in the list closes it.
        assert_eq!(vetted("http://localhost:1/", &[]).unwrap_err().fault, Fault::Egress);
        assert!(vetted("http://localhost:1/", &["127.0.0.0/8", "::1/128"]).is_ok());
    }

    #[test]
    fn a_name_that_cannot_exist_is_a_dns_fault_or_our_own() {
        let fault = vetted("https://nothing.invalid/", &[]).unwrap_err().fault;
        assert!(matches!(fault, Fault::Dns | Fault::Internal), "{fault:?}");
    }

    #[test]
    fn behind_a_proxy_only_literal_addresses_are_vetted() {
        let proxy = Some(Url::parse("http://127.0.0.1:3128").unwrap());
        let behind = |url: &str| Vetted::new(Url::parse(url).unwrap(), proxy.clone(), vec![]).addresses();
        assert_eq!(behind("https://example.invalid/").unwrap(), ["127.0.0.1:3128".parse().unwrap()]);
        assert_eq!(behind("https://169.254.169.254/").unwrap_err().fault, Fault::Egress);
    }
}
