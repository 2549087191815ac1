/// Whether an exchange takes the secrets that it is given, found out before anything else is asked.
[<RequireQualifiedAccess>]
module internal Tributary.Admission

open System
open System.Threading
open System.Threading.Tasks
open Microsoft.Extensions.Logging

/// Nobody waits longer for it than for this.
let private patience = TimeSpan.FromSeconds 5.0

/// How the exchange answers to the secrets, and what it allows with them.
let ask
    (admission: Admission)
    (how: TransportOptions)
    (clock: TimeProvider)
    (log: ILogger)
    (ct: CancellationToken)
    : Task<struct (SignIn * Map<string, int>)> = task {
    use meters = new Meters()

    use transport =
        new Transport(
            {
                how with
                    Retries = 0
                    Timeout = min how.Timeout patience
            },
            clock,
            meters,
            log
        )

    let allowed = Judge(fun body _ -> Ok(admission.Allows body))
    let! answer = transport.Ask(admission.Question, allowed, ct)

    return
        match answer with
        | Ok allowed -> struct (SignIn.Accepted, allowed)
        // 403 may be meant for the question alone.
        | Error { Fault = Fault.Refused(401, _) } ->
            let clocks =
                match transport.Skew with
                | ValueSome skew when skew.Duration() > patience ->
                    $"; our clock is %.0f{skew.TotalSeconds} s ahead of its own, which may be why"
                | _ -> ""

            struct (SignIn.Refused $"the exchange does not take the key (status 401{clocks})", Map.empty)
        | Error failure -> struct (SignIn.Unanswered(Fault.explain failure.Fault), Map.empty)
}

/// The limits of whoever is allowed so much: what the settings say stays, unless it is the usual figure or more than is allowed.
let limited (usual: Limit list) (allowed: Map<string, int>) (configured: Map<string, int>) =
    configured
    |> Map.map (fun name count ->
        match Map.tryFind name allowed with
        | Some told when
            usual
            |> List.exists (fun limit -> limit.Name = name && limit.PerTenSeconds = count)
            ->
            told
        | Some told -> min told count
        | None -> count)

/// The collector that the exchange lets in, and how it is reached. Refused, it is the one without secrets, which is said once; with
/// `auth: required` an error says why. An exchange that does not answer is believed to take them, unless they are required.
let enter
    (settings: CollectorSettings)
    (collector: Collector)
    (how: TransportOptions)
    (clock: TimeProvider)
    (log: ILogger)
    (ct: CancellationToken)
    : Task<Result<struct (Collector * TransportOptions), string>> = task {
    let isRequired = settings.Auth = AuthMode.Required
    let accepted how = Ok(struct (collector, how))

    let needing reason =
        Error
            $"{settings.Exchange}: {reason} (collectors.{settings.Exchange}.auth is required; with optional, public data is collected)"

    match collector.Admission with
    | ValueNone when
        isRequired
        && not settings.Secrets.IsEmpty
        && (Exchanges.Registry.tryAccount settings.Exchange).IsNone
        ->
        return
            match Setup.account settings, Setup.lacking settings with
            | Error reason, _
            | Ok _, Some reason -> needing reason
            | Ok _, None -> needing (String.concat "; " collector.Notes)
    | ValueNone -> return accepted how
    | ValueSome admission ->
        match! ask admission how clock log ct with
        | struct (SignIn.Accepted, allowed) ->
            return
                accepted {
                    how with
                        RateLimits = limited collector.Limits allowed how.RateLimits
                }
        | struct (SignIn.Refused reason, _) when isRequired -> return needing reason
        | struct (SignIn.Refused reason, _) ->
            Log.keyRefused log (string collector.Exchange) reason
            let without = Setup.collectorWith Map.empty settings

            return
                Ok(
                    struct (without,
                            {
                                how with
                                    LimitsOf = without.LimitsOf
                                    Sign = without.Sign
                            })
                )
        | struct (SignIn.Unanswered detail, _) when isRequired ->
            return needing $"the key cannot be checked: {detail}"
        | struct (SignIn.Unanswered detail, _) ->
            Log.keyUnchecked log (string collector.Exchange) detail
            return accepted how
}
