namespace Tributary.Server.Simulator

open System
open System.Globalization

/// Prices and sizes inside the simulator: whole millionths.
module internal Millionths =
    let one = 1_000_000L

    let toDecimal (value: int64) = decimal value / 1_000_000m

    /// Canonical: no trailing zeros, a leading zero before the point ("0.5", "1500.25", "20").
    let text (value: int64) =
        (toDecimal value).ToString CultureInfo.InvariantCulture

    /// With as many decimals as the tick has: 0.5 on a tick of 0.01 is "0.50".
    let padded (tick: int64) (value: int64) =
        let decimals = int (toDecimal tick).Scale
        (toDecimal value).ToString($"F{decimals}", CultureInfo.InvariantCulture)

/// Instants inside the simulator: microseconds since 1970, UTC.
module internal Micros =
    let perSecond = 1_000_000L

    let ofDate (date: DateTimeOffset) =
        (date.UtcTicks - DateTimeOffset.UnixEpoch.UtcTicks) / 10L

    let toDate (micros: int64) =
        DateTimeOffset.UnixEpoch.AddTicks(micros * 10L)

    let toSeconds (micros: int64) = micros / perSecond
    let toMilliseconds (micros: int64) = micros / 1000L
