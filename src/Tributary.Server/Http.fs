namespace Tributary

module internal P =
    let x = 1
