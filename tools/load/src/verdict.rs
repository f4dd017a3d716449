//! Whether a run was good.

use crate::plan::Plan;
use crate::report::Report;
use crate::violation::{Violation, Violations};

/// Fills in the losses, the violations and the failures.
pub(crate) fn judge(report: &mut Report, violations: &Violations, plan: &Plan) {
    let lost = report.packets_expected.saturating_sub(report.packets_received);
    report.packets_lost = lost;
    report.loss_percent = 100.0 * lost as f64 / report.packets_expected.max(1) as f64;
    report.violations = violations.by_name();
    let allowed = plan.allow_loss_percent;
    if report.loss_percent > allowed {
        report.failures.push(format!(
            "{lost} of {} packets did not arrive: {:.4} %, where {allowed} % are allowed",
            report.packets_expected, report.loss_percent
        ));
    }
    for (name, count) in &report.violations {
        // Losses have their own bound, above.
        if name != Violation::Missing.name() {
            report.failures.push(format!("{count} × {name}"));
        }
    }
    if report.streams > 0 && report.packets_received == 0 {
        report.failures.push("nothing was received".into());
    }
    if report.generator.send_errors > 0 {
        report.failures.push(format!(
            "the kernel did not take {} packets of the publishers",
            report.generator.send_errors
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_has_a_bound_and_nothing_else_is_excused() {
        let plan = |allow_loss_percent| Plan { allow_loss_percent, ..Plan::default() };
        let report = || Report {
            streams: 1,
            packets_expected: 1000,
            packets_received: 995,
            ..Report::default()
        };
        let mut violations = Violations::default();
        violations.add(Violation::Missing, 5);
        let judged = |allowed: f64, violations: &Violations| {
            let mut report = report();
            judge(&mut report, violations, &plan(allowed));
            report
        };
        assert!(!judged(0.0, &violations).is_good());
        assert!(!judged(0.4, &violations).is_good());
        assert!(judged(0.5, &violations).is_good());
        violations.add(Violation::Corrupt, 1);
        let report = judged(100.0, &violations);
        assert_eq!(report.failures, ["1 × corrupt"]);
        assert_eq!((report.packets_lost, report.loss_percent), (5, 0.5));
    }
}
