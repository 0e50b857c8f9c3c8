//! The `tracing` layer: events become records of a [`LogClient`].
//!
//! The fields of the spans an event happens in become attributes of its record, the innermost last. An event that is logged
//! by the client's own thread is ignored, so that logging never feeds itself.

use std::cell::{Cell, RefCell};

use tracing::span::{Attributes as SpanFields, Id, Record as SpanValues};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::LogClient;
use crate::encode::{Attributes, Encoder};

/// Records events through a client. Its [`Levels`](crate::Levels) decide for the whole subscriber that the layer is part of.
#[derive(Clone, Debug)]
pub struct TidegateLayer {
    client: LogClient,
}

impl TidegateLayer {
    pub(crate) const fn new(client: LogClient) -> Self {
        Self { client }
    }

    fn encode<S>(&self, encoder: &mut Encoder, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let metadata = event.metadata();
        encoder.start();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions_mut().get_mut::<Attributes>() {
                encoder.inherit(fields.encoded());
            }
        }
        event.record(encoder);
        let severity = metadata.level().into();
        let head = self.client.head(metadata.target(), severity);
        self.client.offer(severity, encoder.line(&head));
    }
}

impl<S> Layer<S> for TidegateLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.client.levels().enables(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.client.levels().enables(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.client.levels().most_verbose())
    }

    fn on_new_span(&self, fields: &SpanFields<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut attributes = Attributes::new();
            fields.record(&mut attributes);
            span.extensions_mut().replace(attributes);
        }
    }

    fn on_record(&self, id: &Id, values: &SpanValues<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(attributes) = span.extensions_mut().get_mut::<Attributes>()
        {
            values.record(attributes);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if MUTED.get() {
            return;
        }
        let reused = ENCODER.try_with(|encoder| match encoder.try_borrow_mut() {
            Ok(mut encoder) => {
                self.encode(&mut encoder, event, &context);
                true
            }
            // A field whose formatting logs an event itself.
            Err(_) => false,
        });
        // A thread that logs while its thread-locals are being destroyed has none.
        if !reused.unwrap_or(false) {
            self.encode(&mut Encoder::new(), event, &context);
        }
    }
}

/// Ignores all further events of the calling thread.
pub(crate) fn mute_this_thread() {
    MUTED.set(true);
}

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
    static MUTED: Cell<bool> = const { Cell::new(false) };
}
