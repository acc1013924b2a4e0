//! Windows of the calendar: kept and given back.

use crate::book::Event;
use crate::engine::{Done, Engine, Error, may_touch, names};
use crate::lease::{Request, Reservation, ReservationId};
use crate::planner::{self, Window};
use crate::policy::{Caller, Policy};
use crate::quantity::Span;
use crate::refusal::Refusal;
use crate::world::World;

impl<W: World> Engine<W> {
    /// Keeps a window of the calendar.
    ///
    /// # Errors
    /// [`Refusal::NoCapacity`] when the window is taken.
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
            let furthest = limits.as_ref().and_then(|l| l.max_reserve_ahead).unwrap_or(Span::MAX);
            if ahead > furthest {
                let message =
                    format!("{start} is {ahead} ahead: at most {furthest} may be reserved");
                return Err(bad(message, "reserve later").into());
            }
            let from = from.max(now.boot);
            let duration = end.since(from);
            let window = Window { request, start: from, duration, besides: None };
            let place = planner::place_at(&engine.book, &gpus, now, &window);
            match place.map_err(Refusal::from)? {
                Some((found, parts)) if found <= from => reservation.parts = parts,
                Some((found, parts)) => {
                    let in_ = found.since(now.boot);
                    return Err(Refusal::NoCapacity { in_, where_: names(&parts) }.into());
                }
                None => {
                    let what = "reservations of this window".to_owned();
                    return Err(Refusal::TooMany { what, limit: 0 }.into());
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
    /// [`Refusal::NoSuchLease`] and [`Refusal::NotYours`].
    pub fn unreserve(&mut self, caller: &Caller, id: &ReservationId) -> Done<(), W> {
        self.transact(|engine, _| {
            let found = engine.book.reservation(id);
            let found = found.ok_or_else(|| Refusal::NoSuchLease { id: id.0.clone() })?;
            may_touch(caller, &found.owner, &id.0)?;
            let rest = engine.book.reservations().filter(|r| r.id != *id).cloned();
            let rest: Vec<Reservation> = rest.collect();
            engine.world.keep_calendar(&rest).map_err(Error::World)?;
            Ok((vec![Event::Unreserved { id: id.clone() }], ()))
        })
    }
}
