/// Signatures of Ethereum's wallets: ECDSA over the curve secp256k1, with the sign by which their maker is found.
///
/// .NET signs, and makes the public key of a private one; what is written by hand here, on numbers of any size and without a guard against
/// being timed, sees only what is public: a digest, a signature, a public key. .NET's signatures have a random part, so two of one
/// digest differ; those of other libraries (RFC 6979) do not. Both prove the same, and an exchange checks them alike: by who is found.
[<RequireQualifiedAccess>]
module Tributary.Secp256k1

open System
open System.Globalization
open System.Numerics
open System.Security.Cryptography
open System.Text

let private hex (text: string) =
    BigInteger.Parse("0" + text, NumberStyles.HexNumber, CultureInfo.InvariantCulture)

// The curve y² = x³ + 7 over the integers modulo `field`; the points that are multiples of the base point are `order` in number.
let private field =
    hex "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEFFFFFC2F"

let private order =
    hex "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141"

let private basePoint =
    struct (hex "79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798",
            hex "483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8")

let private modulo (number: BigInteger) (by: BigInteger) =
    let rest = BigInteger.Remainder(number, by)
    if rest.Sign < 0 then rest + by else rest

let private inverse (number: BigInteger) (by: BigInteger) =
    BigInteger.ModPow(modulo number by, by - BigInteger(2), by) // both moduli are primes

/// A point as (X, Y, Z) for (X/Z², Y/Z³): no division until the end. Z is zero for the point at infinity.
[<Struct>]
type private Point = {
    X: BigInteger
    Y: BigInteger
    Z: BigInteger
}

let private infinity = {
    X = BigInteger.One
    Y = BigInteger.One
    Z = BigInteger.Zero
}

let private twice (p: Point) =
    if p.Z.IsZero || p.Y.IsZero then
        infinity
    else
        let square = modulo (p.Y * p.Y) field
        let s = modulo (BigInteger(4) * p.X * square) field
        let m = modulo (BigInteger(3) * p.X * p.X) field
        let x = modulo (m * m - BigInteger(2) * s) field

        {
            X = x
            Y = modulo (m * (s - x) - BigInteger(8) * square * square) field
            Z = modulo (BigInteger(2) * p.Y * p.Z) field
        }

let private add (p: Point) (q: Point) =
    if p.Z.IsZero then
        q
    elif q.Z.IsZero then
        p
    else
        let pz, qz = modulo (p.Z * p.Z) field, modulo (q.Z * q.Z) field
        let px, qx = modulo (p.X * qz) field, modulo (q.X * pz) field
        let py, qy = modulo (p.Y * qz * q.Z) field, modulo (q.Y * pz * p.Z) field

        if px = qx then
            if py = qy then twice p else infinity
        else
            let h, r = modulo (qx - px) field, modulo (qy - py) field
            let square = modulo (h * h) field
            let cube = modulo (square * h) field
            let v = modulo (px * square) field
            let x = modulo (r * r - cube - BigInteger(2) * v) field

            {
                X = x
                Y = modulo (r * (v - x) - py * cube) field
                Z = modulo (h * p.Z * q.Z) field
            }

let private times (count: BigInteger) (p: Point) =
    let mutable sum, power, left = infinity, p, count

    while not left.IsZero do
        if not left.IsEven then
            sum <- add sum power

        power <- twice power
        left <- left >>> 1

    sum

let private bytes32 (number: BigInteger) : byte[] =
    let bytes = number.ToByteArray(isUnsigned = true, isBigEndian = true)
    Array.append (Array.zeroCreate (32 - bytes.Length)) bytes

let private numberOf (bytes: ReadOnlySpan<byte>) =
    BigInteger(bytes, isUnsigned = true, isBigEndian = true)

/// An address in the form with a checksum in the case of its letters (EIP-55), of the 40 digits of one.
let checksummed (address: string) : string =
    let digits =
        (if address.StartsWith "0x" then
             address.Substring 2
         else
             address)
            .ToLowerInvariant()

    let sum = Convert.ToHexString(Keccak.hash (Encoding.ASCII.GetBytes digits))

    "0x"
    + String.mapi
        (fun i digit ->
            if Uri.FromHex sum[i] >= 8 then
                Char.ToUpperInvariant digit
            else
                digit)
        digits

/// The text is `0x` and 40 hexadecimal digits; in mixed case only with the right checksum.
let isAddress (text: string) =
    let digits = if text.StartsWith "0x" then text.Substring 2 else ""

    digits.Length = 40
    && Seq.forall Char.IsAsciiHexDigit digits
    && (digits = digits.ToLowerInvariant()
        || digits = digits.ToUpperInvariant()
        || text = checksummed text)

let private addressOfPoint (x: byte[]) (y: byte[]) =
    Convert.ToHexString(ReadOnlySpan(Keccak.hash (Array.append x y), 12, 20))
    |> checksummed

/// The address of the wallet that signed a digest of 32 bytes; nothing when no wallet can have made the signature, which is 65 bytes: r, s, and 27
/// or 28 for which of two points was meant.
let recover (digest: byte[]) (signature: byte[]) : string voption =
    if digest.Length <> 32 || signature.Length <> 65 then
        ValueNone
    else
        let r = numberOf (ReadOnlySpan(signature, 0, 32))
        let s = numberOf (ReadOnlySpan(signature, 32, 32))
        let which = int signature[64] - 27

        if r.IsZero || r >= order || s.IsZero || s >= order || which < 0 || which > 1 then
            ValueNone
        else
            let square = modulo (r * r * r + BigInteger(7)) field
            // A root, if there is one: the field's size is 3 more than a multiple of 4.
            let root =
                BigInteger.ModPow(square, (field + BigInteger.One) / BigInteger(4), field)

            if modulo (root * root) field <> square then
                ValueNone
            else
                let y = if root.IsEven = (which = 0) then root else field - root
                let nearby = { X = r; Y = y; Z = BigInteger.One }
                let struct (baseX, baseY) = basePoint

                let generator = {
                    X = baseX
                    Y = baseY
                    Z = BigInteger.One
                }

                let back = inverse r order
                let first = modulo (-(numberOf (ReadOnlySpan digest)) * back) order
                let second = modulo (s * back) order
                let found = add (times first generator) (times second nearby)

                if found.Z.IsZero then
                    ValueNone
                else
                    let z = inverse found.Z field
                    let x = modulo (found.X * z * z) field
                    let y = modulo (found.Y * z * z * z) field
                    ValueSome(addressOfPoint (bytes32 x) (bytes32 y))

// ---- with a private key: .NET's part

let private open' (key: byte[]) =
    let curve = ECCurve.CreateFromValue "1.3.132.0.10"
    ECDsa.Create(ECParameters(Curve = curve, D = key))

let private publicOf (ecdsa: ECDsa) =
    let point = ecdsa.ExportParameters(false).Q

    match point.X, point.Y with
    | NonNull x, NonNull y -> struct (x, y)
    | _ -> invalidOp "a key without a point" // .NET makes none

/// The 32 bytes of a private key that is written with 64 hexadecimal digits, with or without `0x`; the error says nothing of it.
let tryKey (text: string) : Result<byte[], string> =
    let digits = if text.StartsWith "0x" then text.Substring 2 else text

    if digits.Length = 64 && Seq.forall Char.IsAsciiHexDigit digits then
        let key = Convert.FromHexString digits

        try
            use ecdsa = open' key
            ecdsa.ExportParameters false |> ignore
            Ok key
        with :? CryptographicException ->
            Error "the private key is none of secp256k1"
    else
        Error "the private key is not 64 hexadecimal digits"

/// The address of a private key's wallet.
let addressOf (key: byte[]) : string =
    use ecdsa = open' key
    let struct (x, y) = publicOf ecdsa
    addressOfPoint x y

/// Signs a digest of 32 bytes: r, s in its lower form, and 27 or 28. Signing twice gives two signatures.
let sign (key: byte[]) (digest: byte[]) : byte[] =
    use ecdsa = open' key
    let signed = ecdsa.SignHash digest
    let s = numberOf (ReadOnlySpan(signed, 32, 32))
    let low = if s > order / BigInteger(2) then order - s else s
    let signature = Array.concat [ signed[0..31]; bytes32 low; [| 27uy |] ]
    let struct (x, y) = publicOf ecdsa

    if recover digest signature <> ValueSome(addressOfPoint x y) then
        signature[64] <- 28uy

    signature
