//! The world going on while people look at it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use gpu_autoscaler_controller::{api, page};
use gpu_autoscaler_model::Timestamp;
use gpu_autoscaler_sim::Driver;
use gpu_autoscaler_telemetry::http::{self, Limits, Shown};
use tokio::sync::watch;

use super::Speed;

/// How a demo is shown.
pub(crate) struct Serve {
    pub port: u16,
    pub speed: Speed,
    pub until: Option<Timestamp>,
    pub begun: Instant,
    pub first_screen_exit: bool,
}

/// How long the world goes on before it is shown, so that there is something to see.
const BEFORE_SHOWN: Duration = Duration::from_secs(1_800);

/// From one turn of the world to the next, in real time.
const TURN: Duration = Duration::from_millis(250);

/// How much virtual time passes in a turn at full speed: enough to keep busy, little enough that
/// Ctrl-C is heard.
const TURN_AT_MAX: Duration = Duration::from_secs(1_200);

/// The last status, as JSON.
type Shared = watch::Receiver<Arc<str>>;

/// Serves the page and lets the world go on until its end or Ctrl-C; gives the driver back.
pub(crate) fn serve(driver: Driver, how: &Serve) -> Result<Driver> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let driver = runtime.block_on(show(driver, how));
    // A browser that keeps its connection open must not keep the program.
    runtime.shutdown_timeout(Duration::from_millis(200));
    driver
}

async fn show(mut driver: Driver, how: &Serve) -> Result<Driver> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, how.port))
        .await
        .with_context(|| format!("listen on 127.0.0.1:{}", how.port))?;
    let address = listener.local_addr().context("read the address of the page")?;
    let before = driver.world.start().after(BEFORE_SHOWN);
    driver.run(how.until.map_or(before, |until| until.min(before)));
    let (shown, shared) = watch::channel(status(&driver)?);
    let router = page::router().route("/api/v1/status", get(answer).with_state(shared));
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    if how.first_screen_exit {
        look(address).await?;
        eprintln!("first screen after {:.2} s", how.begun.elapsed().as_secs_f64());
        return Ok(driver);
    }
    eprintln!("The page is at http://{address}/ (API: /api/v1/status).");
    eprintln!("{}; Ctrl-C ends and prints what was found.", pace(how.speed));
    let interrupted = async {
        tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
        eprintln!();
        anyhow::Ok(())
    };
    tokio::pin!(interrupted);
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    turns.tick().await;
    let mut server = server;
    loop {
        let turn = async {
            if how.speed != Speed::Max {
                turns.tick().await;
            }
        };
        tokio::select! {
            biased;
            result = &mut interrupted => {
                result?;
                return Ok(driver);
            }
            ended = &mut server => {
                ended.context("serve the page")?.context("serve the page")?;
                bail!("the page is served no more");
            }
            () = turn => {}
        }
        let now = driver.world.now();
        let next = now.after(match how.speed {
            Speed::Max => TURN_AT_MAX,
            Speed::Times(times) => TURN.mul_f64(times),
        });
        let next = how.until.map_or(next, |until| until.min(next));
        driver = tokio::task::spawn_blocking(move || {
            driver.run(next);
            driver
        })
        .await
        .context("let the world go on")?;
        shown.send_replace(status(&driver)?);
        if how.until.is_some_and(|until| until <= next) {
            return Ok(driver);
        }
    }
}

fn pace(speed: Speed) -> String {
    match speed {
        Speed::Max => "As fast as it goes".to_owned(),
        Speed::Times(times) => format!("{times} virtual seconds in a second"),
    }
}

fn status(driver: &Driver) -> Result<Arc<str>> {
    let status = api::Status::from(driver.view());
    Ok(serde_json::to_string(&status).context("write the status")?.into())
}

async fn answer(State(shared): State<Shared>) -> Response {
    let body = shared.borrow().to_string();
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, body).into_response()
}

/// Loads what a browser loads first, and sees that there is something on it.
async fn look(address: SocketAddr) -> Result<()> {
    let limits = Limits { time: Duration::from_secs(5), body_bytes: 16 << 20 };
    let client = http::client()?;
    for path in ["/", "/app.js", "/app.css"] {
        let url = http::address(&format!("http://{address}{path}"))?;
        let shown = Shown::of(&url);
        http::read(client.get(url), &shown, limits).await?;
    }
    let url = http::address(&format!("http://{address}/api/v1/status"))?;
    let shown = Shown::of(&url);
    let body = http::read(client.get(url), &shown, limits).await?;
    let status: api::Status = serde_json::from_slice(&body).context("read the status")?;
    let judged = status.at.is_some() && !status.pods.is_empty();
    if judged { Ok(()) } else { Err(anyhow!("the first screen is empty")) }
}
