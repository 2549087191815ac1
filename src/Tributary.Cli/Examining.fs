/// `tributary doctor`: whether everything that collecting needs is as it should be, and what to do where it is not.
module Tributary.Cli.Examining

open System
open Argu
open Tributary
open Tributary.Cli.Arguments
open Tributary.Cli.Commands
open Tributary.Cli.Terminal

let private line (finding: Observation) =
    let remedy = if finding.Remedy = "" then "" else $": {finding.Remedy}"
    $"{string finding.Grade, -7}  {finding.Subject}: {finding.Seen}{remedy}"

let private asJson (findings: Observation list) = {|
    verdict = string (Diagnosis.gravest findings)
    findings =
        findings
        |> List.map (fun finding -> {|
            grade = string finding.Grade
            subject = finding.Subject
            seen = finding.Seen
            remedy = finding.Remedy
        |})
|}

let doctor (_: Common) (arguments: ParseResults<DoctorArguments>) = task {
    let place = configIn (arguments.TryGetResult DoctorArguments.Config)
    let struct (settings, mistakes) = Setup.readDespite place

    let settings =
        settings
        |> meaning (arguments.TryGetResult DoctorArguments.Exchange)
        |> askInstead (arguments.TryGetResult DoctorArguments.Exchange_Url)
        |> storedIn
            (arguments.TryGetResult DoctorArguments.Store)
            (arguments.TryGetResult DoctorArguments.QuestDb)

    let isJson = arguments.Contains DoctorArguments.Json
    use interrupt = new Interrupt()

    try
        let! findings =
            Doctor.examine
                (DoctorOptions.Create(Option.defaultValue "the defaults" place, settings, mistakes))
                (fun finding ->
                    if not isJson then
                        Console.WriteLine(line finding))
                interrupt.Token

        if isJson then
            json (asJson findings)
        else
            let count grade =
                findings |> List.filter (fun one -> one.Grade = grade) |> List.length

            Console.WriteLine
                $"{count Grade.Ok} ok, {count Grade.Warning} to look at, {count Grade.Failed} failed"

        return
            if not mistakes.IsEmpty then
                Exit.Configuration
            elif Diagnosis.gravest findings = Grade.Failed then
                Exit.Failed
            else
                Exit.Done
    with :? OperationCanceledException when interrupt.Token.IsCancellationRequested ->
        return interrupt.ExitCode
}
