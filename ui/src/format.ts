import type { Amount } from "./status";

/** A share as a percentage; a dash where it is not known. */
export function percent(share: number | null): string {
  if (share === null) return "–";
  return `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`;
}

/** Money with two decimals; a dash where it is not known. */
export function money(amount: Amount | null): string {
  if (amount === null) return "–";
  return new Intl.NumberFormat("en-US", { style: "currency", currency: amount.currency }).format(
    Number(amount.amount),
  );
}

/** A month of 720 hours at this rate, as every monthly figure of the product. */
export function monthly(amount: Amount | null): string {
  if (amount === null) return "–";
  return new Intl.NumberFormat("en-US", {
    style: "currency",
    currency: amount.currency,
    maximumFractionDigits: 0,
  }).format(Number(amount.amount) * 720);
}

/** `2026-01-05 08:30:00 UTC`. */
export function instant(at: string): string {
  return `${at.slice(0, 10)} ${at.slice(11, 19)} UTC`;
}

/** How long before `now` it was, in its largest unit. */
export function ago(at: string, now: string): string {
  const secs = Math.max(0, (Date.parse(now) - Date.parse(at)) / 1000);
  if (secs < 90) return `${Math.round(secs)} s`;
  if (secs < 5400) return `${Math.round(secs / 60)} min`;
  if (secs < 172800) return `${Math.round(secs / 3600)} h`;
  return `${Math.round(secs / 86400)} d`;
}
