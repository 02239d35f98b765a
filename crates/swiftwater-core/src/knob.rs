//! The only thing that automation may turn.

use std::{
    error::Error,
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Weak},
};

use crate::Desc;

/// One adjustable number of a running component: name, bounds, step, read and write.
///
/// It holds the component weakly, so a knob in a dashboard keeps nothing alive. Cloning is cheap.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
/// use swiftwater_core::{Desc, Knob, KnobError, Unit};
///
/// static WORKERS: Desc = Desc::new("workers", Unit::Count, "threads at work");
///
/// let workers = Arc::new(AtomicU32::new(4));
/// let knob = Knob::new(&WORKERS, 1.0..=64.0, 1.0, &workers, |w| w.load(Relaxed).into(), |w, v| w.store(v as u32, Relaxed));
/// assert_eq!(knob.set(7.6)?, 8.0); // rounded to the step
/// assert_eq!(workers.load(Relaxed), 8);
/// assert!(matches!(knob.set(65.0), Err(KnobError::OutOfBounds { .. })));
///
/// let narrow = knob.within(1.0..=8.0)?; // an operator narrows, never widens
/// assert!(narrow.set(9.0).is_err());
/// drop(workers);
/// assert_eq!(narrow.get(), Err(KnobError::Gone));
/// # Ok::<(), KnobError>(())
/// ```
#[derive(Clone)]
pub struct Knob {
    desc: &'static Desc,
    min: f64,
    max: f64,
    /// Where the steps are counted from: the component's own lower bound, however much `within` narrows.
    origin: f64,
    step: f64,
    dial: Arc<dyn Dial>,
}

/// What stands behind a knob once the component's type is forgotten. Bounds, step and NaN are judged in `Knob`.
trait Dial: Send + Sync {
    fn read(&self) -> Option<f64>;
    fn write(&self, value: f64) -> Option<()>;
}

impl Knob {
    /// For components: a knob over `target`.
    ///
    /// `read` and `write` must be quick and must not block; `write` is only ever given a finite value inside the bounds
    /// and on a step. `bounds` and `step` are the component's own promise, so nonsense there is repaired, not
    /// reported: the bounds are put in order, one that is infinite or NaN is the last finite number on its side, and
    /// steps that are not positive and finite, or that such a bound leaves without a beginning, mean "no steps".
    pub fn new<T: Send + Sync + 'static>(
        desc: &'static Desc,
        bounds: RangeInclusive<f64>,
        step: f64,
        target: &Arc<T>,
        read: fn(&T) -> f64,
        write: fn(&T, f64),
    ) -> Self {
        struct On<T> {
            target: Weak<T>,
            read: fn(&T) -> f64,
            write: fn(&T, f64),
        }
        impl<T: Send + Sync> Dial for On<T> {
            fn read(&self) -> Option<f64> {
                Some((self.read)(&*self.target.upgrade()?))
            }
            fn write(&self, value: f64) -> Option<()> {
                (self.write)(&*self.target.upgrade()?, value);
                Some(())
            }
        }
        let (start, end) = (*bounds.start(), *bounds.end());
        let (start, end) = if start > end { (end, start) } else { (start, end) };
        let min = if start.is_finite() { start } else { f64::MIN };
        let max = if end.is_finite() { end } else { f64::MAX };
        let stepped = step.is_finite() && step > 0.0 && start.is_finite();
        Self {
            desc,
            min,
            max,
            origin: min,
            step: if stepped { step } else { 0.0 },
            dial: Arc::new(On { target: Arc::downgrade(target), read, write }),
        }
    }

    /// The name, as the builder spells the option.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.desc.name
    }

    /// Name, unit and help.
    #[must_use]
    pub fn desc(&self) -> &'static Desc {
        self.desc
    }

    /// The lowest and the highest value that [`set`](Self::set) accepts.
    #[must_use]
    pub fn bounds(&self) -> RangeInclusive<f64> {
        self.min..=self.max
    }

    /// Values are rounded to a multiple of this above the component's own lower bound; zero if every value in the bounds
    /// is accepted as it is.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.step
    }

    /// The value now.
    ///
    /// # Errors
    ///
    /// [`KnobError::Gone`] if the component has been dropped.
    pub fn get(&self) -> Result<f64, KnobError> {
        self.dial.read().ok_or(KnobError::Gone)
    }

    /// Sets the value, rounded to the nearest step inside the bounds, and returns what was set.
    ///
    /// # Errors
    ///
    /// [`KnobError::OutOfBounds`] or [`KnobError::NotANumber`], and nothing has changed; [`KnobError::Gone`] if the
    /// component has been dropped.
    pub fn set(&self, value: f64) -> Result<f64, KnobError> {
        if value.is_nan() {
            return Err(KnobError::NotANumber);
        }
        if !self.bounds().contains(&value) {
            return Err(KnobError::OutOfBounds { value, min: self.min, max: self.max });
        }
        let value = self.on_step(value);
        self.dial.write(value).ok_or(KnobError::Gone)?;
        Ok(value)
    }

    /// The same knob with tighter bounds: what lies outside the present ones is cut off.
    ///
    /// # Errors
    ///
    /// [`KnobError::NotANumber`] if a bound is, [`KnobError::OutOfBounds`] if nothing of the present bounds is left, or
    /// no step in what is left.
    pub fn within(&self, bounds: RangeInclusive<f64>) -> Result<Self, KnobError> {
        if bounds.start().is_nan() || bounds.end().is_nan() {
            return Err(KnobError::NotANumber);
        }
        let narrow =
            Self { min: self.min.max(*bounds.start()), max: self.max.min(*bounds.end()), ..self.clone() };
        if narrow.min > narrow.max || narrow.on_step(narrow.min) > narrow.max {
            return Err(KnobError::OutOfBounds { value: *bounds.start(), min: self.min, max: self.max });
        }
        Ok(narrow)
    }

    /// The step nearest to `value`, which is inside the bounds; above them only if no step is inside.
    fn on_step(&self, value: f64) -> f64 {
        if self.step == 0.0 {
            return value;
        }
        let steps = |to: f64| (to - self.origin) / self.step;
        // A trifle, so that 3 steps of 0.1 are no more than 0.3.
        let (lowest, highest) = ((steps(self.min) - TRIFLE).ceil(), (steps(self.max) + TRIFLE).floor());
        // Not `clamp`, which panics where no step is inside.
        let stepped = self.origin + steps(value).round().min(highest).max(lowest) * self.step;
        let slack = self.step * TRIFLE;
        if stepped > self.max && stepped <= self.max + slack {
            self.max
        } else if stepped < self.min {
            self.min // by less than a trifle
        } else {
            stepped
        }
    }
}

impl fmt::Debug for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knob")
            .field("name", &self.desc.name)
            .field("bounds", &self.bounds())
            .field("step", &self.step)
            .field("value", &self.dial.read())
            .finish()
    }
}

/// In steps: what floating point may be off by.
const TRIFLE: f64 = 1e-9;

/// Why a knob did not turn.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum KnobError {
    /// The component has been dropped.
    Gone,
    /// NaN.
    NotANumber,
    /// Outside the bounds.
    OutOfBounds {
        /// What was asked for.
        value: f64,
        /// The lowest value that is accepted.
        min: f64,
        /// The highest value that is accepted.
        max: f64,
    },
}

impl fmt::Display for KnobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the component is gone"),
            Self::NotANumber => f.write_str("not a number"),
            Self::OutOfBounds { value, min, max } => write!(f, "{value} is outside {min} to {max}"),
        }
    }
}

impl Error for KnobError {}

/// Offers its knobs to automation.
///
/// # Laws
///
/// 1. The same knobs come in the same order on every call.
/// 2. Turning a knob changes the component's behaviour from the next operation on, and leaves every promise of the
///    component intact within the knob's bounds.
/// 3. Names are unique within a component, and a knob reads what was last set.
///
/// `conformance::tunable` (feature `testing`) checks 1 and 3.
pub trait Tunable {
    /// Calls `each` once per knob.
    fn knobs(&self, each: &mut dyn FnMut(Knob));
}
