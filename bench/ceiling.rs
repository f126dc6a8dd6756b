//! What the HTTP library alone can do: eight threads post signed bodies of about 500 bytes, each resolving through a
//! cache, as the worker does. The figure that `bench/drain` is held against.
//!
//! `ceiling URL REQUESTS [CA_FILE]` prints requests per second and CPU µs per request of this process.

use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

const THREADS: usize = 8;

type Failure = Box<dyn Error + Send + Sync>;

/// Answers every request from one lookup: ureq asks for each request, and its own resolver spawns a thread for it.
#[derive(Debug)]
struct Resolved(SocketAddr);

impl Resolver for Resolved {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(self.0);
        Ok(addresses)
    }
}

fn agent(address: SocketAddr, authority: Option<Certificate<'static>>) -> Agent {
    let tls = authority.map(|authority| {
        TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(vec![authority]))).build()
    });
    let config = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(15)))
        .timeout_connect(Some(Duration::from_secs(5)))
        .max_idle_connections_per_host(THREADS)
        .max_idle_connections(THREADS)
        .tls_config(tls.unwrap_or_default())
        .build();
    Agent::with_parts(config, DefaultConnector::default(), Resolved(address))
}

/// Signs one body by Standard Webhooks v1 and posts it; anything but 2xx is an error.
fn post(agent: &Agent, url: &str, number: usize, body: &str) -> Result<(), Failure> {
    let (id, timestamp) = (format!("ceiling-{number:027}"), "1790000000");
    let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef01234567")?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body.as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let mut response = agent
        .post(url)
        .header("content-type", "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", &signature)
        .send(body)?;
    response.body_mut().read_to_vec()?;
    if response.status().is_success() { Ok(()) } else { Err(response.status().to_string().into()) }
}

/// User and system time of this process so far, in µs.
fn cpu_us() -> Result<f64, Failure> {
    const TICK_US: f64 = 10_000.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Result<Vec<f64>, _> = after_name.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() * TICK_US)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, url, requests, authority @ ..] = arguments.as_slice() else {
        return Err("usage: ceiling URL REQUESTS [CA_FILE]".into());
    };
    let authority = authority.first().map(std::fs::read).transpose()?;
    let authority = authority.map(|pem| Certificate::from_pem(&pem)).transpose()?;
    let requests: usize = requests.parse()?;
    let uri: Uri = url.parse()?;
    let host = (uri.host().unwrap_or("127.0.0.1"), uri.port_u16().unwrap_or(80));
    let address = host.to_socket_addrs()?.next().ok_or("the host has no address")?;

    let body = format!("{{\"type\":\"contact.created\",\"data\":\"{}\"}}", "x".repeat(450));
    let agent = agent(address, authority);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (agent, next, body) = (agent.clone(), Arc::clone(&next), &body);
                scope.spawn(move || -> Result<(), Failure> {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return Ok(());
                        }
                        post(&agent, url, number, body)?;
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread failed".into())))
    })?;
    let rate = requests as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} {:.1}", cpu_us()? / requests as f64);
    Ok(())
}
