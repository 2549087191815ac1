namespace Tributary

/// A setting that is another one in a new configuration.
type SettingChange = {
    /// Its path, such as `schedule.books`; of a named market or event `collectors.NAME.markets[SLUG]`.
    Key: string
    /// As a file would have it, secrets as their references; nothing when there was none.
    Before: string voption
    After: string voption
    /// It counts from the next start on.
    NeedsRestart: bool
} with

    /// One sentence for a person.
    override this.ToString() =
        let shown value =
            match value with
            | ValueSome "" -> "nothing"
            | ValueSome value -> value
            | ValueNone -> ""

        let change =
            match this.Before, this.After with
            | ValueNone, after -> $"added ({shown after})"
            | before, ValueNone -> $"removed (was {shown before})"
            | before, after -> $"{shown before} is now {shown after}"

        let when' = if this.NeedsRestart then "; needs a restart" else ""
        $"{this.Key}: {change}{when'}"

/// What a new configuration changes in a collector that runs.
[<RequireQualifiedAccess>]
module Reload =
    /// What a collector takes on while it runs: which markets it collects.
    let private isTakenOn (key: string) =
        match key.Split('.', 4) with
        | [| "collectors"; _; rest |]
        | [| "collectors"; _; rest; _ |] -> rest = "discovery" || rest.StartsWith "markets["
        | _ -> false

    /// What is different, by key.
    let changes (before: Map<string, string>) (after: Map<string, string>) : SettingChange list = [
        let keys = Seq.append before.Keys after.Keys |> Seq.distinct |> Seq.sort

        for key in keys do
            let old, fresh = Map.tryFind key before, Map.tryFind key after

            if old <> fresh then
                {
                    Key = key
                    Before = ValueOption.ofOption old
                    After = ValueOption.ofOption fresh
                    NeedsRestart = not (isTakenOn key)
                }
    ]

    /// The settings that run, with what they take on of the new ones.
    let takeOn (running: Settings) (fresh: Settings) : Settings = {
        running with
            Collectors =
                running.Collectors
                |> List.map (fun one ->
                    match fresh.Collectors |> List.tryFind (fun other -> other.Exchange = one.Exchange) with
                    | Some other -> {
                        one with
                            Markets = other.Markets
                            Discovery = other.Discovery
                      }
                    | None -> one)
    }
