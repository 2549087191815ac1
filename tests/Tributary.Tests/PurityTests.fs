module Tributary.Tests.PurityTests

open System.IO
open System.Reflection.Metadata
open System.Reflection.PortableExecutable
open NUnit.Framework
open Tributary

/// Every type and member of other assemblies that Tributary.Core mentions.
let private mentions =
    lazy
        (use file = File.OpenRead typeof<Batch>.Assembly.Location
         use image = new PEReader(file)
         let metadata = image.GetMetadataReader()

         let nameOf (handle: TypeReferenceHandle) =
             let reference = metadata.GetTypeReference handle
             $"{metadata.GetString reference.Namespace}.{metadata.GetString reference.Name}"

         [
             for handle in metadata.TypeReferences do
                 nameOf handle

             for handle in metadata.MemberReferences do
                 let reference = metadata.GetMemberReference handle

                 if reference.Parent.Kind = HandleKind.TypeReference then
                     $"{nameOf (TypeReferenceHandle.op_Explicit reference.Parent)}.{metadata.GetString reference.Name}"
         ])

// Names is read by many threads, so it may lock and publish; nothing else of System.Threading is needed.
let private allowed = [ "System.Threading.Lock"; "System.Threading.Volatile" ]

[<TestCase("System.IO.")>]
[<TestCase("System.Net.")>]
[<TestCase("System.Threading.")>]
[<TestCase("System.Diagnostics.Process")>]
[<TestCase("System.Diagnostics.Stopwatch")>]
[<TestCase("System.Environment")>]
[<TestCase("System.Random")>]
[<TestCase("System.Console")>]
[<TestCase("System.TimeProvider")>]
[<TestCase("System.DateTime.get_Now")>]
[<TestCase("System.DateTime.get_UtcNow")>]
[<TestCase("System.DateTime.get_Today")>]
[<TestCase("System.DateTimeOffset.get_Now")>]
[<TestCase("System.DateTimeOffset.get_UtcNow")>]
[<TestCase("System.Guid.NewGuid")>]
[<TestCase("Microsoft.FSharp.Control.FSharpAsync")>]
[<TestCase("Microsoft.FSharp.Control.FSharpMailboxProcessor")>]
let ``Core does not know`` (forbidden: string) =
    mentions.Value
    |> List.filter (fun name -> name.StartsWith forbidden && not (allowed |> List.exists name.StartsWith))
    |> equal []

[<Test>]
let ``the references are read at all`` () =
    isTrue (mentions.Value |> List.contains "System.Security.Cryptography.SHA256.HashData")
