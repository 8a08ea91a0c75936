//! Who asks, before anything is done for them.
//!
//! A layer around all routes finds out who asks ([`Asker`]); a protocol has no engine but what its [`Gate`] gives out, and that
//! is bound to the asker. So no request is carried out for nobody, whatever the protocol. One that needs no more than an upload's key
//! or a signed link says so by name: [`Gate::for_holder`].

use std::sync::Arc;

use http::Extensions;

use super::error::{Code, Problem};
use super::link::ContentLinks;
use crate::engine::{Engine, Settings};
use crate::model::caller::Scopes;
use crate::model::{Caller, Scope};

/// Who asks, or why that cannot be told. In the extensions of every request.
#[derive(Debug, Clone)]
pub struct Asker(pub Arc<Result<Caller, Problem>>);

impl Asker {
    /// Someone who was found out.
    #[must_use]
    pub fn known(caller: Caller) -> Self {
        Self(Arc::new(Ok(caller)))
    }
}

/// What stands between a protocol and the engine.
#[derive(Clone)]
pub struct Gate {
    engine: Engine,
    links: Arc<ContentLinks>,
}

impl Gate {
    /// Before an engine.
    #[must_use]
    pub fn new(engine: Engine, links: ContentLinks) -> Self {
        let links = Arc::new(links);
        Self { engine, links }
    }

    /// The links that open content.
    #[must_use]
    pub fn links(&self) -> &ContentLinks {
        &self.links
    }

    /// The engine for whoever asks, if they may do what `scope` names.
    pub fn enter(&self, request: &Extensions, scope: Scope) -> Result<Engine, Problem> {
        let caller = caller(request)?;
        if !caller.scopes.allow(scope) {
            return Err(Problem::new(
                Code::Forbidden,
                format!("this needs a token with the scope {}", scope.name()),
            ));
        }
        Ok(self.engine.on_behalf_of(caller.clone()))
    }

    /// The engine for whoever asks, to read what they may.
    pub fn enter_to_read(&self, request: &Extensions) -> Result<Engine, Problem> {
        Ok(self.engine.on_behalf_of(caller(request)?.clone()))
    }

    /// The engine for somebody who may nothing but what everybody may.
    #[must_use]
    pub fn for_anybody(&self) -> Engine {
        let anybody = Caller {
            scopes: Scopes::default(),
            ..Caller::anonymous()
        };
        self.engine.on_behalf_of(anybody)
    }

    /// What clients are told of the server.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.engine.settings()
    }

    /// The engine for whoever has the key or the handle of an upload, whoever they are.
    #[must_use]
    pub fn for_holder(&self) -> &Engine {
        &self.engine
    }
}

/// Who asks.
pub fn caller(request: &Extensions) -> Result<&Caller, Problem> {
    let asker: &Asker = request
        .get()
        .expect("a layer around all routes has found out who asks");
    asker.0.as_ref().as_ref().map_err(Clone::clone)
}
