//! The ten features as FEATURES.md writes them, slowly, keeping every payment: shares no code with the crate.
#![allow(clippy::disallowed_methods, reason = "an independent reference takes the platform's logarithm")]

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// All payments of a user so far, and the merchant table, the one part that cannot be derived anew each time.
#[derive(Default)]
pub(super) struct SlowProfile {
    payments: Vec<(f64, i64)>,
    recent: Vec<i64>,
    /// (name, count, when its last payment arrived)
    merchants: Vec<(String, u64, usize)>,
}

fn bucket(a: f64) -> i64 {
    if a < 0.01 { 0 } else { 1 + ((a / 0.01).ln() / 0.09531017980432493).floor() as i64 }
}

impl SlowProfile {
    pub(super) fn features(&self, amount: f64, t: i64, merchant: &str, p99: Option<f64>) -> Vec<f64> {
        let n = self.payments.len() as f64;
        let mut f = vec![(1.0 + amount).ln(), 0.0, 0.5, 1.0, 0.0, 0.0, (1.0f64 + 2_592_000.0).ln(), 0.0, 1.0, 0.0];
        if n >= 20.0 {
            f[8] = 0.0;
        }
        if let Some(p99) = p99 {
            f[9] = f64::from(u8::from(amount > p99));
        }
        if n == 0.0 {
            return f;
        }
        if n >= 2.0 {
            let mean = self.payments.iter().map(|p| p.0).sum::<f64>() / n;
            let m2 = self.payments.iter().map(|p| (p.0 - mean) * (p.0 - mean)).sum::<f64>();
            let sd = (m2 / (n - 1.0)).sqrt();
            f[1] = ((amount - mean) / sd.max(0.01 * mean.abs()).max(0.01)).clamp(-50.0, 50.0);
        }
        let b = bucket(amount);
        let below = self.payments.iter().filter(|p| bucket(p.0) < b).count() as f64;
        let same = self.payments.iter().filter(|p| bucket(p.0) == b).count() as f64;
        f[2] = (below + same / 2.0) / n;
        let first = self.payments.iter().map(|p| p.1).min().unwrap();
        let last = self.payments.iter().map(|p| p.1).max().unwrap();
        let c1h = self.recent.iter().filter(|&&x| x > t - 3_600_000 && x <= t).count() as f64;
        f[3] = (c1h + 1.0) / (1.0 + n / ((t - first) as f64 / 3_600_000.0).max(1.0));
        let mut c = [0.0f64; 24];
        let mut d = [0.0f64; 7];
        for p in &self.payments {
            c[(p.1 / 3_600_000 % 24) as usize] += 1.0;
            d[((p.1 / 86_400_000 + 3) % 7) as usize] += 1.0;
        }
        let p: Vec<f64> = (0..24).map(|h| c[(h + 23) % 24] / 4.0 + c[h] / 2.0 + c[(h + 1) % 24] / 4.0 + 1.0 / 24.0).collect();
        f[4] = 1.0 - p[(t / 3_600_000 % 24) as usize] / p.iter().copied().fold(0.0, f64::max);
        let p: Vec<f64> = d.iter().map(|c| c + 1.0 / 7.0).collect();
        f[5] = 1.0 - p[((t / 86_400_000 + 3) % 7) as usize] / p.iter().copied().fold(0.0, f64::max);
        f[6] = (1.0 + (t - last).max(0) as f64 / 1000.0).ln();
        f[7] = self.merchants.iter().find(|m| m.0 == merchant).map_or(0.0, |m| m.1 as f64) / n;
        f
    }

    pub(super) fn update(&mut self, amount: f64, t: i64, merchant: &str) {
        self.payments.push((amount, t));
        let last = self.payments.iter().map(|p| p.1).max().unwrap();
        self.recent.push(t);
        self.recent.retain(|&x| x > last - 3_600_000);
        while self.recent.len() > 256 {
            self.recent.remove(0);
        }
        let now = self.payments.len();
        if let Some(m) = self.merchants.iter_mut().find(|m| m.0 == merchant) {
            (m.1, m.2) = (m.1 + 1, now);
            return;
        }
        if self.merchants.len() == 64 {
            let mut out = 0;
            for (i, m) in self.merchants.iter().enumerate() {
                let best = &self.merchants[out];
                if m.1 < best.1 || (m.1 == best.1 && m.2 < best.2) {
                    out = i;
                }
            }
            self.merchants.remove(out);
        }
        self.merchants.push((merchant.to_string(), 1, now));
    }
}
