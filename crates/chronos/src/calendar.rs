//! Windows of the calendar: kept and given back.

use crate::book::Event;
use crate::engine::{Done, Engine, Error, may_touch, names};
use crate::lease::{Request, Reservation, ReservationId};
use crate::planner::{self, Share, Window};
use crate::policy::{Caller, Exceeded, Policy};
use crate::quantity::Span;
use crate::refusal::Refusal;
use crate::world::World;

impl<W: World> Engine<W> {
    /// Keeps a window of the calendar.
    ///
    /// # Errors
    /// [`Refusal::WindowTaken`], [`Refusal::Policy`], [`Refusal::Never`].
    pub fn reserve(
        &mut self,
        caller: &Caller,
        rules: &Policy,
        request: &Request,
        start: gpu_autoscaler_model::Timestamp,
    ) -> Done<Reservation, W> {
        let gpus = self.world.gpus().map_err(Error::World)?;
        let limits = rules.limits(caller);
        self.transact(|engine, now| {
            engine.has_room()?;
            engine.allowed(caller, limits.as_ref(), request, &gpus, now)?;
            let mut reservation = Reservation {
                id: ReservationId(format!(
                    "reservation_{}_{:04}",
                    now.wall.as_millis(),
                    engine.book.serial()
                )),
                owner: caller.owner.clone(),
                parts: Vec::new(),
                start,
                duration: request.duration,
            };
            let (from, end) = planner::span_of(&reservation, now);
            let bad =
                |message: String, hint: &str| Refusal::BadInput { message, hint: hint.into() };
            if end <= now.boot {
                let message = format!("the window that starts at {start} is over");
                return Err(bad(message, "name a start in the future").into());
            }
            let ahead = from.since(now.boot);
            if ahead > Span::MAX {
                let message = format!("{start} is more than {:#} ahead", Span::MAX);
                return Err(bad(message, "name an earlier start").into());
            }
            if let Some(limit) = limits.as_ref().and_then(|l| l.max_reserve_ahead)
                && ahead > limit
            {
                let (user, what) = (caller.owner.user.clone(), "time ahead".to_owned());
                let (asked, limit) = (format!("{ahead:#}"), format!("{limit:#}"));
                return Err(Refusal::from(Exceeded { user, what, asked, limit }).into());
            }
            let from = from.max(now.boot);
            let duration = end.since(from);
            let window = Window { share: Share::Of(request), start: from, duration, besides: None };
            let place = planner::place_at(&engine.book, &gpus, now, &window);
            match place.map_err(Refusal::from)? {
                (found, parts) if found <= from => reservation.parts = parts,
                (found, parts) => {
                    let (for_, in_) = (request.duration, found.since(now.boot));
                    let where_ = names(&parts);
                    return Err(Refusal::WindowTaken { start, for_, in_, where_ }.into());
                }
            }
            let mut kept: Vec<Reservation> = engine.book.reservations().cloned().collect();
            kept.push(reservation.clone());
            // Durable before it is acknowledged; a window that is kept but not in the book appears
            // at the next boot, which errs to the side of the user.
            engine.world.keep_calendar(&kept).map_err(Error::World)?;
            Ok((vec![Event::Reserved(Box::new(reservation.clone()))], reservation))
        })
    }

    /// Gives a window of the calendar back.
    ///
    /// # Errors
    /// [`Refusal::NotWaiting`] and [`Refusal::NotYours`].
    pub fn unreserve(&mut self, caller: &Caller, id: &ReservationId) -> Done<(), W> {
        self.transact(|engine, _| {
            let found = engine.book.reservation(id);
            let found = found.ok_or_else(|| Refusal::NotWaiting { id: id.0.clone() })?;
            may_touch(caller, &found.owner, &id.0)?;
            let rest = engine.book.reservations().filter(|r| r.id != *id).cloned();
            let rest: Vec<Reservation> = rest.collect();
            engine.world.keep_calendar(&rest).map_err(Error::World)?;
            Ok((vec![Event::Unreserved { id: id.clone() }], ()))
        })
    }
}
