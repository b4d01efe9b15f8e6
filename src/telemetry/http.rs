//! Serves `/metrics` over HTTP/1.1, made at each scrape by another thread than the control thread's.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use super::prometheus::render;
use crate::control::ControlHandle;

/// The content type of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics address cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("[control] metrics = \"{address}\": cannot listen there: {source}")]
pub struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens on the address of `[control] metrics`.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    TcpListener::bind(address).await.map_err(|source| MetricsError { address, source })
}

/// Serves until it is dropped.
pub async fn serve<F, E>(listener: TcpListener, handle: ControlHandle<F, E>) -> io::Result<()>
where
    F: Send + 'static,
    E: Send + Sync + 'static,
{
    let metrics = get(move || {
        let handle = handle.clone();
        async move { metrics(handle).await }
    });
    let root = get(|| async { "fullgate: metrics in Prometheus' text format are at /metrics\n" });
    axum::serve(listener, Router::new().route("/", root).route("/metrics", metrics)).await
}

async fn metrics<F, E>(handle: ControlHandle<F, E>) -> Response {
    let Some(measured) = handle.measure().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n").into_response();
    };
    match spawn_blocking(move || render(&measured)).await {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
