//! Names to vetted addresses.
//!
//! ureq asks for **every** request, also when it then takes a pooled connection, so the answer is kept for a few
//! seconds, and every one is vetted before it is used.
//!
//! One refused address refuses the whole name: a name that points to a public and a private address is either an
//! attack or a mistake. A resolver belongs to one origin under one policy, so a new policy starts with no kept answers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;
use url::{Host, Url};

use super::failure::Failure;
use super::names::Names;
use super::{address, wire};
use crate::outcome::Fault;

/// How long a vetted answer is used: long enough for a burst, short enough for a failover by DNS.
const KEEP: Duration = Duration::from_secs(5);
/// ureq's list of addresses is this long.
const MAX_ADDRESSES: usize = 16;

/// The vetted addresses of one origin.
pub(super) struct Vetted {
    names: Arc<Names>,
    url: Url,
    /// Connect there instead. The proxy looks names up itself, and it is the administrator's to choose.
    proxy: Option<Url>,
    allow: Vec<IpNet>,
    kept: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
}

impl Vetted {
    pub(super) fn new(names: Arc<Names>, url: Url, proxy: Option<Url>, allow: Vec<IpNet>) -> Self {
        Self { names, url, proxy, allow, kept: Mutex::new(None) }
    }

    fn addresses(&self, until: Option<Instant>) -> Result<Vec<SocketAddr>, Failure> {
        if let Some((since, addresses)) = &*self.kept.lock().unwrap_or_else(PoisonError::into_inner)
            && since.elapsed() < KEEP
        {
            return Ok(addresses.clone());
        }
        self.vet_host()?;
        let found = match &self.proxy {
            Some(proxy) => {
                self.look_up(proxy, until).map_err(|failure| Failure {
                    // The administrator chose the proxy, so no endpoint answers for its name.
                    fault: Fault::Internal,
                    message: format!("proxy: {}", failure.message),
                })?
            }
            None => {
                let found = self.look_up(&self.url, until)?;
                found.iter().try_for_each(|address| self.vet(address.ip()))?;
                found
            }
        };
        let kept = (Instant::now(), found.clone());
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(found)
    }

    fn vet(&self, ip: IpAddr) -> Result<(), Failure> {
        address::permitted(ip, &self.allow).map_err(|why| {
            Failure::new(Fault::Egress, format!("{ip} is {why}, which is not open to webhooks"))
        })
    }

    /// What the URL itself says: an address, or a name that stands for one everywhere. Behind a proxy this is all that
    /// is known; other names are the proxy's business.
    fn vet_host(&self) -> Result<(), Failure> {
        match self.url.host() {
            Some(Host::Ipv4(ip)) => self.vet(ip.into()),
            Some(Host::Ipv6(ip)) => self.vet(ip.into()),
            Some(Host::Domain(name)) => address::stands_for(name).map_or(Ok(()), |ip| self.vet(ip)),
            None => Ok(()),
        }
    }

    /// Addresses in the URL need no lookup.
    fn look_up(&self, url: &Url, until: Option<Instant>) -> Result<Vec<SocketAddr>, Failure> {
        let found = match url.host() {
            Some(Host::Ipv4(ip)) => vec![ip.into()],
            Some(Host::Ipv6(ip)) => vec![ip.into()],
            Some(Host::Domain(name)) => self.names.addresses(name, until)?,
            None => return Err(Failure::new(Fault::Config, "the url has no host")),
        };
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }
}

impl Resolver for Vetted {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.addresses(wire::deadline(timeout))?;
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn vetted(url: &str, proxy: Option<&str>, allow: &[&str]) -> Result<Vec<SocketAddr>, Failure> {
        let lookup = |name: &str| {
            let texts: &[&str] = match name {
                "public.example" => &["93.184.216.34", "2606:2800:220:1::1"],
                "private.example" => &["10.0.0.7"],
                "mixed.example" => &["93.184.216.34", "10.0.0.7"],
                "mapped.example" => &["93.184.216.34", "::ffff:10.0.0.7"],
                "metadata.example" => &["169.254.169.254"],
                "proxy.example" => &["10.3.1.28"],
                _ => return Err(io::Error::other("no such name")),
            };
            Ok(texts.iter().map(|text| text.parse().unwrap()).collect())
        };
        let names = Arc::new(Names::new(Arc::new(lookup)));
        let proxy = proxy.map(|proxy| Url::parse(proxy).unwrap());
        let allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        Vetted::new(names, Url::parse(url).unwrap(), proxy, allow).addresses(None)
    }

    fn fault(url: &str, allow: &[&str]) -> Fault {
        vetted(url, None, allow).unwrap_err().fault
    }

    #[test]
    fn a_refused_address_names_its_class() {
        let failure = vetted("https://10.1.2.3/", None, &[]).unwrap_err();
        assert_eq!(failure.fault, Fault::Egress);
        assert_eq!(failure.message, "10.1.2.3 is a private address, which is not open to webhooks");
    }

    #[test]
    fn a_public_name_becomes_all_its_addresses_with_the_port_of_the_url() {
        let found = vetted("https://public.example:8443/", None, &[]).unwrap();
        let want = ["93.184.216.34:8443", "[2606:2800:220:1::1]:8443"];
        assert_eq!(found, want.map(|text| text.parse().unwrap()));
    }

    #[test]
    fn a_name_of_a_private_address_is_refused_unless_listed() {
        assert_eq!(fault("https://private.example/", &[]), Fault::Egress);
        assert!(vetted("https://private.example/", None, &["10.0.0.7/32"]).is_ok());
        assert_eq!(fault("https://private.example/", &["10.0.0.8/32"]), Fault::Egress);
    }

    #[test]
    fn one_refused_address_refuses_the_name() {
        for name in ["mixed.example", "mapped.example"] {
            assert_eq!(fault(&format!("https://{name}/"), &[]), Fault::Egress, "{name}");
        }
    }

    #[test]
    fn a_name_of_a_metadata_address_is_refused_whatever_is_listed() {
        assert_eq!(fault("https://metadata.example/", &["0.0.0.0/0", "::/0"]), Fault::Egress);
    }

    #[test]
    fn the_system_says_that_a_name_cannot_exist_or_that_its_resolver_is_down() {
        let url = Url::parse("https://nothing.invalid/").unwrap();
        let vetted = Vetted::new(Arc::new(Names::of_the_system()), url, None, vec![]);
        let fault = vetted.addresses(None).unwrap_err().fault;
        assert!(matches!(fault, Fault::Dns | Fault::Internal), "{fault:?}");
    }

    #[test]
    fn behind_a_proxy_the_proxy_is_trusted_and_names_are_its_business() {
        for proxy in ["http://10.3.1.28:3128", "http://proxy.example:3128"] {
            let found = vetted("https://unheard-of.example/", Some(proxy), &[]).unwrap();
            assert_eq!(found, ["10.3.1.28:3128".parse().unwrap()]);
        }
    }

    #[test]
    fn behind_a_proxy_what_the_url_itself_says_is_vetted() {
        for host in [
            "169.254.169.254",
            "10.0.0.1",
            "2130706433",
            "[::ffff:10.0.0.1]",
            "localhost",
            "LOCALHOST.",
            "receiver.localhost",
            "metadata.google.internal",
            "metadata.google.internal.",
        ] {
            let failure =
                vetted(&format!("https://{host}/"), Some("http://10.3.1.28:3128"), &[]).unwrap_err();
            assert_eq!(failure.fault, Fault::Egress, "{host}");
        }
    }

    #[test]
    fn a_proxy_whose_name_does_not_resolve_is_our_own_fault() {
        let failure = vetted("https://public.example/", Some("http://gone.example:3128"), &[]).unwrap_err();
        assert_eq!(failure.fault, Fault::Internal);
    }
}
