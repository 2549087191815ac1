namespace Tributary

/// What a source of past trades was read for, of one market: all that it serves of these times is stored.
type Coverage = {
    Market: MarketId
    /// Its name: `v1`, `v2`, `chain`.
    Source: string
    Read: Interval list
    /// What was met there that could not be read as a fill and may be one: logs of unknown layouts. It says nothing of which market.
    Unknown: int64
}

/// What a source leaves out even of the times that it was read for.
type SourceLimits = {
    Source: string
    /// It serves nothing older than this; nothing here means that it goes back to the first fill.
    Horizon: System.TimeSpan voption
    /// What it never serves of the times that it does serve, in a few words such as `dust below 0.01`; empty when it serves all.
    Omits: string
}
